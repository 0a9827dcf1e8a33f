"""The emitter: what is emitted is in the log without a gap, or not at all."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from agent_service.api.wire import ProtoCodec
from agent_service.engine.emitter import CHECKPOINT_VERSION, MAX_EVENT_BYTES, RunEmitter
from agent_service.engine.errors import FencedError, GrammarError, HandoverError
from agent_service.engine.events import (
    AgentProgress,
    AgentStarted,
    AgentThinking,
    Effect,
    Event,
    FinalResponse,
    PartialResult,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
)
from agent_service.engine.journal import MAX_PENDING_EVENTS, Journal
from agent_service.engine.run import RunState
from storage.memory import MemoryStorage
from storage.records import Checkpoint, MessageRecord, MessageRole, RunStatus
from tests.support.faulty_log import FaultyEventLog
from tests.support.gates import is_stuck
from tests.support.storage import START, a_run, working

THOUGHT = AgentThinking("Hm.")
MOVED_ON = AgentProgress(ProgressStage.STEP, "On.")


class StoppedClock:
    """Implements `ports.Clock`: no time passes."""

    def now(self) -> datetime:
        return START

    def monotonic_ms(self) -> int:
        return 0


class Desk:
    """An emitter of a claimed run, over a log that can be held up."""

    def __init__(self, storage: MemoryStorage, log: FaultyEventLog, journal: Journal, emitter: RunEmitter) -> None:
        self.storage = storage
        self.log = log
        self.journal = journal
        self.emitter = emitter

    async def stored(self) -> list[Event]:
        """Return what is in the log after event 1, which is not the codec's."""
        run_id = self.emitter.state.run_id
        page = await self.storage.events.read("ada", run_id, 1, max_events=10_000, max_bytes=1 << 30)
        return [ProtoCodec().decode(event.data) for event in page]

    def message(self, content: str) -> MessageRecord:
        run_id, thread_id = self.emitter.state.run_id, self.emitter.state.thread_id
        return MessageRecord("answer", thread_id, run_id, "ada", MessageRole.ASSISTANT, content, START)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    storage = MemoryStorage(lambda: datetime.now(UTC))
    run = await working(storage, a_run())
    log = FaultyEventLog(storage.events)
    journal = Journal(log, lambda _run_id, _events: None, retry_delays_ms=())
    journal.start()
    state = RunState(run.run_id, run.thread_id)
    state.next(START, "supervisor", AgentStarted("supervisor", "Message received.", "message"))
    yield Desk(storage, log, journal, RunEmitter(state, journal.open_run(run), ProtoCodec(), StoppedClock(), START))
    log.appends.open()
    await journal.close()


async def test_emit_queues_and_commit_waits_for_the_database(desk: Desk) -> None:
    desk.log.appends.close()
    await asyncio.wait_for(desk.emitter.emit("data", THOUGHT), 1)
    committing = asyncio.create_task(desk.emitter.commit("data", MOVED_ON))
    assert await is_stuck(committing)
    assert not await desk.stored()
    desk.log.appends.open()
    await committing
    assert [event.body for event in await desk.stored()] == [THOUGHT, MOVED_ON]


async def test_a_producer_that_is_cancelled_while_it_waits_leaves_no_gap(desk: Desk) -> None:
    desk.log.appends.close()
    await desk.emitter.emit("data", THOUGHT)
    await desk.log.appends.reached()
    for _ in range(MAX_PENDING_EVENTS):
        await desk.emitter.emit("data", MOVED_ON)
    waiting = [asyncio.create_task(desk.emitter.emit("data", PartialResult("answer", "lost"))) for _ in range(3)]
    assert await is_stuck(waiting[0])
    waiting[0].cancel()
    waiting[2].cancel()
    desk.log.appends.open()
    await waiting[1]
    await desk.emitter.complete(FinalResponse("answer", "lost"), desk.message("lost"))
    events = await desk.stored()
    assert [event.seq for event in events] == list(range(2, len(events) + 2))
    assert sum(isinstance(event.body, PartialResult) for event in events) == 1


async def test_producers_that_wait_together_keep_to_the_bound(desk: Desk) -> None:
    desk.log.appends.close()
    await desk.emitter.emit("data", THOUGHT)
    await desk.log.appends.reached()
    for _ in range(MAX_PENDING_EVENTS):
        await desk.emitter.emit("data", MOVED_ON)
    waiting = [asyncio.create_task(desk.emitter.emit("data", MOVED_ON)) for _ in range(MAX_PENDING_EVENTS + 1)]
    assert await is_stuck(waiting[0])
    desk.log.appends.open()
    await asyncio.gather(*waiting)
    await desk.emitter.flush()
    assert max(len(append.events) for call in desk.log.calls for append in call) == MAX_PENDING_EVENTS
    assert len(await desk.stored()) == 2 * MAX_PENDING_EVENTS + 2


async def test_what_does_not_fit_is_as_if_it_had_not_been_tried(desk: Desk) -> None:
    with pytest.raises(GrammarError):
        await desk.emitter.emit("data", ToolCompleted("call", "tool", ToolStatus.SUCCESS))
    with pytest.raises(GrammarError, match="bytes"):
        await desk.emitter.emit("data", PartialResult("answer", "x" * MAX_EVENT_BYTES))
    with pytest.raises(UnicodeEncodeError):
        await desk.emitter.emit("data", AgentThinking("\ud83d"))
    large = "x" * MAX_EVENT_BYTES
    with pytest.raises(GrammarError):
        await desk.emitter.complete(FinalResponse("answer", large), desk.message(large))
    await desk.emitter.commit("data", THOUGHT)
    assert [(event.seq, event.body) for event in await desk.stored()] == [(2, THOUGHT)]


async def test_the_largest_event_that_fits_goes_through(desk: Desk) -> None:
    def draft(size: int) -> PartialResult:
        return PartialResult("answer", "x" * size)

    def encoded(size: int) -> bytes:
        return ProtoCodec().encode(desk.emitter.state.draft(START, "data", draft(size)))

    fitting = MAX_EVENT_BYTES - (len(encoded(500_000)) - 500_000)
    assert len(encoded(fitting)) == MAX_EVENT_BYTES
    with pytest.raises(GrammarError):
        await desk.emitter.emit("data", draft(fitting + 1))
    await desk.emitter.commit("data", draft(fitting))


async def test_an_ending_is_one_transaction(desk: Desk) -> None:
    await desk.emitter.commit("data", THOUGHT)
    await desk.emitter.commit("data", ToolExecuting("call", "tool", "Looks", {}, Effect.READ_ONLY))
    await desk.emitter.complete(FinalResponse("answer", "Done."), desk.message("Done."))
    last_call = [type(ProtoCodec().decode(event.data).body).__name__ for event in desk.log.calls[-1][0].events]
    assert last_call == ["ToolCompleted", "PartialResult", "FinalResponse", "AgentCompleted"]
    ending = desk.log.calls[-1][0].ending
    assert ending is not None
    assert (ending.status, ending.message) == (RunStatus.COMPLETED, desk.message("Done."))
    assert [event.terminal for event in desk.log.calls[-1][0].events] == [False, False, False, True]


async def test_nothing_can_be_emitted_after_the_end(desk: Desk) -> None:
    await desk.emitter.cancel("Enough.")
    with pytest.raises(GrammarError, match="has ended"):
        await desk.emitter.emit("data", THOUGHT)
    with pytest.raises(GrammarError, match="has ended"):
        await desk.emitter.cancel("Again.")


async def test_a_checkpoint_goes_with_the_next_event_and_only_with_that(desk: Desk) -> None:
    desk.emitter.save_checkpoint(b"old")
    desk.emitter.save_checkpoint(b"new")
    await desk.emitter.commit("data", THOUGHT)
    await desk.emitter.commit("data", MOVED_ON)
    saved = [append.checkpoint for call in desk.log.calls for append in call]
    assert saved == [Checkpoint(2, CHECKPOINT_VERSION, b"new"), None]


async def test_a_checkpoint_waits_where_its_event_does_not_fit(desk: Desk) -> None:
    desk.emitter.save_checkpoint(b"state")
    with pytest.raises(GrammarError):
        await desk.emitter.emit("data", ToolCompleted("call", "tool", ToolStatus.SUCCESS))
    await desk.emitter.commit("data", THOUGHT)
    assert await desk.storage.events.checkpoint(desk.emitter.state.run_id) == Checkpoint(
        2, CHECKPOINT_VERSION, b"state"
    )


async def test_a_handover_waits_for_a_safe_point_and_commits_it(desk: Desk) -> None:
    emitter = desk.emitter
    await emitter.emit("data", THOUGHT)
    emitter.request_handover()
    for call_id in ("a", "b"):
        await emitter.emit("data", ToolExecuting(call_id, "tool", "Looks", {}, Effect.READ_ONLY))
    await emitter.emit("data", MOVED_ON)
    await emitter.emit("data", ToolCompleted("a", "tool", ToolStatus.SUCCESS))
    emitter.save_checkpoint(b"state")
    last = ToolCompleted("b", "tool", ToolStatus.SUCCESS)
    with pytest.raises(HandoverError):
        await emitter.emit("data", last)
    assert (await desk.stored())[-1].body == last
    assert await desk.storage.events.checkpoint(emitter.state.run_id) is not None
    with pytest.raises(HandoverError):
        await emitter.emit("data", THOUGHT)
    assert (await desk.stored())[-1].body == last


async def test_who_is_fenced_hears_it_and_writes_nothing(desk: Desk) -> None:
    state = desk.emitter.state
    await desk.storage.runs.release(state.run_id, 1)
    await desk.storage.runs.claim_run("ada", state.run_id, "other", lease_ms=60_000)
    await desk.emitter.emit("data", THOUGHT)
    with pytest.raises(FencedError):
        await desk.emitter.flush()
    with pytest.raises(FencedError):
        await desk.emitter.emit("data", THOUGHT)
    with pytest.raises(FencedError):
        await desk.emitter.cancel("Enough.")
    assert not await desk.stored()
