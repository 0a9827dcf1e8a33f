import pytest

from agent_service.api.rates import WINDOW_MS, MessageRates
from agent_service.engine.errors import ApexError, ErrorReason


async def test_the_limit_itself_passes_and_one_more_does_not() -> None:
    rates = MessageRates(3)
    for _ in range(3):
        await rates.count("ann")
    with pytest.raises(ApexError) as failure:
        await rates.count("ann")
    assert failure.value.reason is ErrorReason.RATE_LIMITED
    assert failure.value.retry_after_ms is not None
    assert 0 < failure.value.retry_after_ms <= WINDOW_MS
    await rates.count("bob")
