"""Welch's test: against hand-worked numbers, and what holds for any two samples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.tools.optimization.significance import MIN_SAMPLE, Sample, compare, stratified


def test_chance_is_judged_from_thirty_values_on() -> None:
    one, two = Sample(MIN_SAMPLE, 10, 4), Sample(MIN_SAMPLE, 11, 4)
    found = compare(one, two)
    # z = 1 / √(8 / 30) = 1.9365; two-sided p = 0.0528.
    assert found.p_value == pytest.approx(0.0528, abs=1e-4)
    assert compare(one, Sample(MIN_SAMPLE - 1, 11, 4)).p_value is None
    assert compare(Sample(30, 1, 0), Sample(30, 1, 0)).p_value == 1
    assert compare(Sample(30, 1, 0), Sample(30, 2, 0)).p_value == 0


SAMPLES = st.builds(Sample, st.integers(1, 1_000), st.floats(-1e6, 1e6), st.floats(0, 1e6))


@given(SAMPLES, SAMPLES)
def test_a_comparison_is_symmetric(one: Sample, two: Sample) -> None:
    there, back = compare(one, two), compare(two, one)
    assert there.difference == -back.difference
    assert there.p_value == back.p_value
    assert there.low <= there.difference <= there.high


def test_strata_are_weighted_by_what_comes_after() -> None:
    found = stratified([(Sample(90, 1, 4), Sample(10, 2, 4)), (Sample(10, 10, 9), Sample(30, 10, 9))])
    assert found.difference == pytest.approx(0.25 * 1)
    # 0.25² · (4 / 90 + 4 / 10) + 0.75² · (9 / 10 + 9 / 30)
    error = (0.0625 * (4 / 90 + 0.4) + 0.5625 * 1.2) ** 0.5
    assert found.high - found.difference == pytest.approx(1.959964 * error)
