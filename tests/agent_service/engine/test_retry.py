"""How long is waited before a retry, and what is not retried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.engine.errors import ApexError, ErrorReason, FencedError, HandoverError, ModelError, Remedy
from agent_service.engine.retry import MAX_BACKOFF_S, MIN_BACKOFF_S, Backoff, concerns_the_run, failure_of
from storage.errors import StorageUnavailableError


async def waited(retry: int, chance: float) -> float:
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    await Backoff(sleep, lambda: chance).wait(retry)
    return found[0]


@pytest.mark.parametrize(
    ("retry", "least", "most"), [(1, 0.5, 1.0), (2, 0.5, 2.0), (4, 0.5, 8.0), (5, 0.5, 10.0), (9, 0.5, 10.0)]
)
async def test_waits_grow_to_their_bound(retry: int, least: float, most: float) -> None:
    assert [await waited(retry, 0.0), await waited(retry, 1.0)] == [least, most]


@given(retry=st.integers(1, 50), chance=st.floats(0, 1))
async def test_no_wait_is_outside_of_the_bounds(retry: int, chance: float) -> None:
    assert MIN_BACKOFF_S <= await waited(retry, chance) <= MAX_BACKOFF_S


@pytest.mark.parametrize(
    ("error", "concerns"),
    [
        (ApexError(ErrorReason.BUDGET_EXCEEDED, ""), True),
        (ApexError(ErrorReason.INVALID_ARGUMENT, ""), True),
        (FencedError(), True),
        (HandoverError(), True),
        (StorageUnavailableError(""), True),
        (ApexError(ErrorReason.MODEL_UNAVAILABLE, ""), False),
        (LookupError(), False),
        (TimeoutError(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_concerns_the_run_is_no_failure_of_a_step(error: Exception, *, concerns: bool) -> None:
    assert concerns_the_run(error) is concerns


def test_a_failure_says_what_may_help_and_nothing_that_nobody_foresaw() -> None:
    refused = failure_of(ModelError("Declined.", Remedy.NONE))
    assert (refused.words, refused.remedy, refused.of_model) == ("Declined.", Remedy.NONE, False)
    busy = failure_of(ModelError("Busy.", Remedy.OTHER_MODEL))
    assert (busy.remedy, busy.of_model) == (Remedy.OTHER_MODEL, True)
    defect = failure_of(LookupError("/srv/secret"))
    assert (defect.words, defect.remedy, defect.of_model) == ("It failed unexpectedly.", Remedy.AGAIN, False)
