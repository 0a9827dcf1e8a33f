"""A provider that fails is left alone, and comes back."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import pytest
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelRateLimitError,
    ModelRequestRejectedError,
)

from agent_service.engine.circuits import MAX_FAILURES, WINDOW_MS
from agent_service.engine.errors import ModelError
from agent_service.llm.circuits import PROBE_S, Circuit, CircuitOpenError
from agent_service.llm.failures import busy
from agent_service.llm.loop import ModelLoop
from agent_service.llm.models import Models
from agent_service.llm.resilience import Retries
from tests.support.openai_server import OPENAI
from tests.support.provider_server import ProviderServer
from tests.support.steps import sink, step

DOWN: Final = ModelHTTPError(503, "m")


class Watchless:
    """Implements `Clock`: moves when told to."""

    ms = 1_000

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.ms / 1000, UTC)

    def monotonic_ms(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Watchless:
    return Watchless()


def is_closed(circuit: Circuit) -> bool:
    return circuit.is_closed


async def ask(circuit: Circuit, error: BaseException | None = None) -> None:
    async with circuit.request():
        if error is not None:
            raise error


async def fail(circuit: Circuit, times: int, error: BaseException = DOWN) -> None:
    for _ in range(times):
        with pytest.raises(type(error)):
            await ask(circuit, error)


async def in_our_words(circuit: Circuit, error: ModelAPIError) -> None:
    async with circuit.request():
        raise busy("m", 600) from error


@pytest.mark.parametrize(
    ("error", "closed"),
    [(DOWN, False), (ModelRateLimitError("m", "slow down"), True)],
    ids=["down", "rate limited"],
)
async def test_a_failure_in_our_words_counts_as_what_the_provider_said(
    error: ModelAPIError, clock: Watchless, *, closed: bool
) -> None:
    circuit = Circuit("openai", clock)
    for _ in range(MAX_FAILURES):
        with pytest.raises(ModelError):
            await in_our_words(circuit, error)
    assert is_closed(circuit) is closed


async def test_three_failures_in_a_row_leave_it_alone_for_a_minute(clock: Watchless) -> None:
    circuit = Circuit("openai", clock)
    await fail(circuit, MAX_FAILURES - 1)
    await ask(circuit)
    assert is_closed(circuit)
    await fail(circuit, MAX_FAILURES)
    assert not is_closed(circuit)
    clock.ms += WINDOW_MS - 500
    with pytest.raises(CircuitOpenError) as caught:
        await ask(circuit)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    clock.ms += 600
    await ask(circuit)
    assert is_closed(circuit)
    await ask(circuit)


async def test_a_probe_that_fails_begins_the_rest_anew(clock: Watchless) -> None:
    circuit = Circuit("openai", clock)
    await fail(circuit, MAX_FAILURES)
    clock.ms += WINDOW_MS + 1_000
    await fail(circuit, 1)
    with pytest.raises(CircuitOpenError):
        await ask(circuit)


async def test_one_request_alone_finds_out_whether_it_is_back(clock: Watchless) -> None:
    circuit = Circuit("openai", clock)
    await fail(circuit, MAX_FAILURES)
    clock.ms += WINDOW_MS + 1_000
    async with circuit.request():
        with pytest.raises(CircuitOpenError) as caught:
            await ask(circuit)
        assert caught.value.retry_after_s == PROBE_S
    await ask(circuit)


async def test_a_probe_that_is_cancelled_says_nothing(clock: Watchless) -> None:
    circuit = Circuit("openai", clock)
    await fail(circuit, MAX_FAILURES)
    clock.ms += WINDOW_MS + 1_000
    await fail(circuit, 1, asyncio.CancelledError())
    await fail(circuit, 1)
    with pytest.raises(CircuitOpenError):
        await ask(circuit)


REJECTED: Final = [
    ModelHTTPError.for_category(ModelRequestRejectedError, status_code=400, model_name="m"),
    ModelHTTPError.for_category(ModelRateLimitError, status_code=429, model_name="m"),
    ValueError("ours"),
]


@pytest.mark.parametrize("error", REJECTED, ids=["rejected", "rate-limit", "ours"])
async def test_what_the_provider_answers_for_or_we_do_is_no_failure_of_it(error: Exception) -> None:
    circuit = Circuit("openai")
    await fail(circuit, MAX_FAILURES + 1, error)
    await ask(circuit)


@pytest.mark.parametrize(
    "error", [DOWN, ModelConnectionError("m", "x"), ModelAPIError("m", "x")], ids=["503", "line", "odd"]
)
async def test_what_it_does_not_answer_is(error: Exception) -> None:
    circuit = Circuit("openai")
    await fail(circuit, MAX_FAILURES, error)
    with pytest.raises(CircuitOpenError):
        await ask(circuit)


async def test_while_it_is_left_alone_a_step_ends_at_once_in_words() -> None:
    once = Retries(attempts=1)
    async with ProviderServer([OPENAI.failure(503)] * MAX_FAILURES) as server:
        models = Models([OPENAI.model, "openai:o3"], accounts={"openai": OPENAI.account(server.url)}, retries=once)
        loop = ModelLoop(models)
        for _ in range(MAX_FAILURES):
            with pytest.raises(ModelError, match="HTTP 503"):
                await loop.run(step(), sink())
        with pytest.raises(ModelError, match=r"is asked again in (59|60) s") as caught:
            await loop.run(step(model="openai:o3"), sink())  # of the same provider
        await models.aclose()
    assert len(server.asked) == MAX_FAILURES
    assert caught.value.retry_after_ms == pytest.approx(60_000, abs=5_000)
