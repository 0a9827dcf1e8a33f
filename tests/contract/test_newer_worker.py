"""A run that a newer worker has begun, in the hands of a worker of this version.

What it knows it works on. What it does not know it leaves alone: the log stays as it is, byte for byte, for a newer
worker to go on with; when none comes, the run ends as WORKER_LOST, like any run that nobody can work on.
"""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from agent_service.api.wire import ProtoCodec
from agent_service.engine.attempt import MAX_CLAIMS
from agent_service.engine.errors import ErrorReason
from agent_service.engine.events import AgentCompleted, AgentError, CompletionStatus, FinalResponse
from agent_service.engine.work import Work
from storage.memory import MemoryStorage
from storage.records import RunRecord, RunStatus
from tests.support.gates import Gate
from tests.support.newer_runs import append, ending, future_event, future_value, log_of, thought
from tests.support.storage import ManualClock
from tests.support.waiting import eventually
from tests.support.workshop import ANN, LEASE_MS, Workshop, answer

UNKNOWN = pytest.mark.parametrize("unknown", [future_event, future_value])
MakeEvent = Callable[[RunRecord, int], bytes]


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def storage(clock: ManualClock) -> AsyncIterator[MemoryStorage]:
    """A storage whose leases run out when the test says so."""
    opened = MemoryStorage(clock.now)
    yield opened
    await opened.close()


async def begun_by_a_newer_worker(storage: MemoryStorage, *made: MakeEvent) -> RunRecord:
    """Return a run that a newer worker has written these events of, and then handed over."""
    async with Workshop(storage, slots=0) as shop:
        accepted = await shop.accept("hello")
    run = await storage.runs.claim_run(accepted.user_id, accepted.run_id, "newer", lease_ms=LEASE_MS)
    assert run is not None
    await append(storage, run, [make(run, run.last_seq + place) for place, make in enumerate(made, 1)])
    await storage.runs.release(run.run_id, run.epoch)
    return run


async def times_given_up(shop: Workshop, logs: list[EventDict], times: int) -> None:
    """Wait until the worker has given up a run so many times."""
    shop.worker.wake()
    await eventually(
        lambda: [entry["event"] for entry in logs].count("run_abandoned") >= times, what=f"given up {times} times"
    )


async def test_new_fields_are_no_reason_to_stop(storage: MemoryStorage) -> None:
    run = await begun_by_a_newer_worker(storage, thought)
    before = await log_of(storage, run)
    async with Workshop(storage) as shop:
        assert (await shop.told(run)).of(FinalResponse)
    assert list(await log_of(storage, run))[: len(before)] == before


@UNKNOWN
async def test_a_run_with_something_unknown_is_left_as_it_is_and_ends_in_the_end(
    storage: MemoryStorage, clock: ManualClock, logs: list[EventDict], unknown: MakeEvent
) -> None:
    run = await begun_by_a_newer_worker(storage, thought, unknown)
    before = await log_of(storage, run)
    async with Workshop(storage) as shop:
        for claim in range(1, MAX_CLAIMS + 1):
            await times_given_up(shop, logs, claim)
            assert (await shop.now(run)).status is RunStatus.RUNNING
            assert await log_of(storage, run) == before
            clock.advance(LEASE_MS / 1000)
        shop.worker.wake()
        async with await shop.broadcast.watch(ANN, run.run_id, len(before)) as watch:
            added = [event async for batch in watch for event in batch]
        ended = await shop.now(run)
        assert not shop.supervisor.begun
    assert [entry["event"] for entry in logs].count("run_abandoned") == MAX_CLAIMS
    (last,) = added
    end = ProtoCodec().decode(last.data)
    assert isinstance(end.body, AgentError)
    assert (end.body.reason, end.seq, last.terminal) == (ErrorReason.WORKER_LOST, len(before) + 1, True)
    assert (ended.status, ended.error_reason) == (RunStatus.FAILED, "WORKER_LOST")
    assert await log_of(storage, run) == [*before, last.data]


@UNKNOWN
async def test_a_newer_worker_goes_on_where_an_older_one_gave_up(
    storage: MemoryStorage, clock: ManualClock, logs: list[EventDict], unknown: MakeEvent
) -> None:
    run = await begun_by_a_newer_worker(storage, unknown)
    before = await log_of(storage, run)
    async with Workshop(storage) as shop:
        await times_given_up(shop, logs, 1)
        await shop.stop()
    clock.advance(LEASE_MS / 1000)
    newer = await storage.runs.claim_run(run.user_id, run.run_id, "newer", lease_ms=LEASE_MS)
    assert newer is not None
    end = ending(newer, newer.last_seq + 1)
    await append(storage, newer, end, ends=True)
    assert await log_of(storage, run) == [*before, *end]
    assert (await storage.runs.get(run.user_id, run.run_id)).status is RunStatus.COMPLETED


@UNKNOWN
async def test_a_cancellation_is_taken_and_holds(
    storage: MemoryStorage, clock: ManualClock, logs: list[EventDict], unknown: MakeEvent
) -> None:
    run = await begun_by_a_newer_worker(storage, unknown)
    before = await log_of(storage, run)
    async with Workshop(storage, slots=0) as shop:
        assert (await shop.runs.cancel(ANN, run_id=run.run_id, reason="Enough.")).status.is_open
        assert await log_of(storage, run) == before
    async with Workshop(storage) as shop:
        for claim in range(2, MAX_CLAIMS + 2):
            clock.advance(LEASE_MS / 1000)
            await times_given_up(shop, logs, claim)
        clock.advance(LEASE_MS / 1000)
        shop.worker.wake()
        async with await shop.broadcast.watch(ANN, run.run_id, len(before)) as watch:
            (last,) = [event async for batch in watch for event in batch]
        assert (await shop.now(run)).status is RunStatus.CANCELLED
    end = ProtoCodec().decode(last.data)
    assert isinstance(end.body, AgentCompleted)
    assert (end.body.status, end.body.message) == (CompletionStatus.CANCELLED, "Enough.")
    assert await log_of(storage, run) == [*before, last.data]


@UNKNOWN
async def test_other_runs_are_worked_on_meanwhile(
    storage: MemoryStorage, logs: list[EventDict], unknown: MakeEvent
) -> None:
    gate = Gate(is_open=False)

    async def script(work: Work) -> FinalResponse:
        await gate.passage()
        return await answer(work)

    await begun_by_a_newer_worker(storage, unknown)
    async with Workshop(storage, slots=1) as shop:
        await times_given_up(shop, logs, 1)
        shop.supervisor.scripts["hi"] = script
        other = await shop.accept("hi")
        await gate.reached()
        gate.open()
        assert (await shop.told(other)).of(FinalResponse)
