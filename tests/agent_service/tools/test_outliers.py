"""What is unusual among values, against plain Python."""

from hypothesis import given
from hypothesis import strategies as st

from agent_service.tools.outliers import MIN_VALUES, baseline
from tests.support.datasets import unusual


@given(st.lists(st.integers(0, 1_000), min_size=MIN_VALUES, max_size=60))
def test_what_is_unusual_is_so_by_plain_python(values: list[int]) -> None:
    base = baseline(values)
    assert base is not None
    for value in set(values):
        methods = set(base.methods(value))
        if abs(abs(base.z_score(value)) - 3) > 1e-9:  # on the very edge the last bit decides
            assert methods == unusual(values, value)
        if methods:
            low, high = base.expected(value)
            assert not low < value < high


def test_fewer_values_have_no_baseline() -> None:
    assert baseline([1.0] * (MIN_VALUES - 1)) is None
