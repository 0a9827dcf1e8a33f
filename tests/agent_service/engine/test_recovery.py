"""Processes that die at work: what the next one does with their runs."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from pydantic import BaseModel
from structlog.typing import EventDict

from agent_service.engine.attempt import MAX_CLAIMS
from agent_service.engine.clock import SystemClock
from agent_service.engine.errors import ErrorReason
from agent_service.engine.events import (
    AgentCompleted,
    AgentError,
    AgentProgress,
    CompletionStatus,
    Effect,
    FinalResponse,
    JsonObject,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
)
from agent_service.engine.tool import Tool, ToolContext
from agent_service.engine.work import Work
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.records import Append, RunStatus, StoredEvent
from tests.support.gates import Gate
from tests.support.workshop import ANN, LEASE_MS, Workshop, a_tool, answer, call_agreed_tool, call_tool, say, think


class Bench:
    """Tools that note their calls and hang as long as `gate` is closed, and a script that uses them all."""

    def __init__(self) -> None:
        self.gate = Gate(is_open=False)
        self.ran: list[tuple[str, str]] = []
        self.checkpoints: list[bytes | None] = []

    def tools(self) -> Sequence[Tool[BaseModel]]:
        async def quick(context: ToolContext) -> JsonObject:
            self.ran.append(("quick", context.tool_call_id))
            return {"rows": 3}

        async def safe(context: ToolContext) -> JsonObject:
            self.ran.append(("safe", context.tool_call_id))
            await self.gate.passage()
            return {}

        async def unsafe(context: ToolContext) -> JsonObject:
            self.ran.append(("unsafe", context.tool_call_id))
            await self.gate.passage()
            return {}

        return [
            a_tool("quick", quick),
            a_tool("safe", safe, Effect.IDEMPOTENT),
            a_tool("unsafe", unsafe, Effect.UNSAFE),
        ]

    async def script(self, work: Work) -> FinalResponse:
        self.checkpoints.append(work.checkpoint)
        if work.checkpoint is None:
            await say(work, "Perhaps")
            await think(work)
            work.emitter.save_checkpoint(b"thought")
        outcome = await call_tool(work, "quick", "a")
        assert outcome.result == {"rows": 3}
        outcomes = await asyncio.gather(call_tool(work, "safe", "b"), call_agreed_tool(work, "unsafe", "c"))
        await think(work, f"The unsafe one: {outcomes[1].status}.")
        return await answer(work)


async def test_a_run_is_taken_up_where_a_crash_left_it(storage: Storage) -> None:
    bench = Bench()
    async with Workshop(storage, tools=bench.tools()) as first:
        first.supervisor.scripts["hello"] = bench.script
        run = await first.accept("hello")
        await bench.gate.reached(2)
        await first.crash()
    bench.gate.open()
    async with Workshop(storage, tools=bench.tools()) as second:
        second.supervisor.scripts["hello"] = bench.script
        told = await second.told(run)
    assert sorted(set(told.attempts)) == [1, 2]
    notice = told.of(AgentProgress)[0]
    assert (notice.stage, notice.discard_partial) == (ProgressStage.RESUMED, True)
    # One tool_executing per call, under the same ids; the completed one and the unsafe one did not run again.
    assert [body.tool_call_id for body in told.of(ToolExecuting)] == ["1-data.a", "1-data.b", "1-data.c"]
    assert bench.ran == [
        ("quick", "1-data.a"),
        ("safe", "1-data.b"),
        ("unsafe", "1-data.c"),
        ("safe", "1-data.b"),
    ]
    statuses = {body.tool_name: body.status for body in told.of(ToolCompleted)}
    assert statuses == {
        "quick": ToolStatus.SUCCESS,
        "safe": ToolStatus.SUCCESS,
        "unsafe": ToolStatus.OUTCOME_UNKNOWN,
    }
    assert bench.checkpoints == [None, b"thought"]
    assert told.of(FinalResponse)[0].content == "You said hello."


async def test_the_message_keeps_its_id_over_attempts(storage: Storage) -> None:
    gate, ids = Gate(is_open=False), list[str]()

    async def script(work: Work) -> FinalResponse:
        ids.append(work.message_id)
        await say(work, "Perhaps")
        await work.emitter.flush()
        await gate.passage()
        return FinalResponse(work.message_id, "Perhaps")

    async with Workshop(storage) as first:
        first.supervisor.scripts["hello"] = script
        run = await first.accept("hello")
        await gate.reached()
        await first.crash()
    gate.open()
    async with Workshop(storage) as second:
        second.supervisor.scripts["hello"] = script
        told = await second.told(run)
    assert ids[0] == ids[1] == told.of(FinalResponse)[0].message_id


async def test_a_queued_run_is_begun_after_a_crash_as_if_nothing_had_happened(storage: Storage) -> None:
    async with Workshop(storage, slots=0) as first:
        run = await first.accept("hello")
        await first.crash()
    async with Workshop(storage) as second:
        told = await second.told(run)
    assert set(told.attempts) == {1}
    assert told.of(FinalResponse)


async def test_a_cancellation_survives_a_crash(storage: Storage) -> None:
    gate = Gate(is_open=False)

    async def script(work: Work) -> FinalResponse:
        await gate.passage()
        return await answer(work)

    async with Workshop(storage, beat_interval_ms=LEASE_MS) as first:
        first.supervisor.scripts["hello"] = script
        run = await first.accept("hello")
        await gate.reached()
        await storage.runs.request_cancel("ann", run.run_id, "Enough.")
        await first.crash()
    async with Workshop(storage) as second:
        completed = (await second.told(run)).of(AgentCompleted)[0]
    assert (completed.status, completed.message) == (CompletionStatus.CANCELLED, "Enough.")


async def test_a_cancellation_does_not_say_how_an_unsafe_call_ended(storage: Storage) -> None:
    bench = Bench()
    async with Workshop(storage, tools=bench.tools()) as shop:
        shop.supervisor.scripts["hello"] = bench.script
        run = await shop.accept("hello")
        await bench.gate.reached(2)
        await shop.runs.cancel(ANN, run_id=run.run_id)
        told = await shop.told(run)
    assert told.of(AgentCompleted)[0].status is CompletionStatus.CANCELLED
    assert {body.tool_name: body.status for body in told.of(ToolCompleted)} == {
        "quick": ToolStatus.SUCCESS,
        "safe": ToolStatus.CANCELLED,
        "unsafe": ToolStatus.OUTCOME_UNKNOWN,
    }


@pytest.mark.parametrize("slots", [1, 0], ids=["its next worker ends it", "nobody works, who cancels ends it"])
async def test_a_cancellation_after_a_crash_does_not_say_how_an_unsafe_call_ended(storage: Storage, slots: int) -> None:
    bench = Bench()

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await asyncio.gather(call_tool(work, "safe", "b"), call_agreed_tool(work, "unsafe", "c"))
        return await answer(work)

    async with Workshop(storage, tools=bench.tools()) as first:
        first.supervisor.scripts["hello"] = script
        run = await first.accept("hello")
        await bench.gate.reached(2)
        await first.crash()
    if slots:
        await storage.runs.request_cancel("ann", run.run_id, "Enough.")
    async with Workshop(storage, tools=bench.tools(), slots=slots) as second:
        if not slots:
            await second.runs.cancel(ANN, run_id=run.run_id)
        told = await second.told(run)
    assert told.of(AgentCompleted)[0].status is CompletionStatus.CANCELLED
    assert {body.tool_name: body.status for body in told.of(ToolCompleted)} == {
        "safe": ToolStatus.CANCELLED,
        "unsafe": ToolStatus.OUTCOME_UNKNOWN,
    }
    assert len(bench.ran) == 2


async def crash_at_work(storage: Storage, times: int, *, saving: bool = False) -> None:
    """Let so many processes die while they work on the run that says hello."""
    for _ in range(times):
        gate = Gate(is_open=False)

        async def script(work: Work, gate: Gate = gate) -> FinalResponse:
            await think(work)
            await call_agreed_tool(work, "unsafe", work.run.run_id[:8])
            if saving:
                work.emitter.save_checkpoint(b"state")
                await work.emitter.commit("data", AgentProgress(ProgressStage.STEP, "On."))
            await gate.passage()
            return await answer(work)

        async def unsafe(_: ToolContext, gate: Gate = gate) -> JsonObject:
            if not saving:
                await gate.passage()
            return {}

        async with Workshop(storage, tools=[a_tool("unsafe", unsafe, Effect.UNSAFE)]) as shop:
            shop.supervisor.scripts["hello"] = script
            await gate.reached()
            await shop.crash()


async def test_a_run_that_loses_every_worker_ends_in_the_end(storage: Storage) -> None:
    async with Workshop(storage, slots=0) as shop:
        run = await shop.accept("hello")
    await crash_at_work(storage, MAX_CLAIMS)
    async with Workshop(storage) as last:
        told = await last.told(run)
        assert not last.supervisor.begun
    error = told.of(AgentError)[0]
    assert (error.reason, error.retryable) == (ErrorReason.WORKER_LOST, True)
    assert [body.status for body in told.of(ToolCompleted)] == [ToolStatus.OUTCOME_UNKNOWN]
    assert (await storage.runs.get("ann", run.run_id)).status is RunStatus.FAILED


async def test_one_crash_fewer_and_the_run_goes_on(storage: Storage) -> None:
    async with Workshop(storage, slots=0) as shop:
        run = await shop.accept("hello")
    await crash_at_work(storage, MAX_CLAIMS - 1)
    async with Workshop(storage) as last:
        assert (await last.told(run)).of(FinalResponse)


async def test_a_checkpoint_makes_the_count_begin_anew(storage: Storage) -> None:
    async with Workshop(storage, slots=0) as shop:
        run = await shop.accept("hello")
    await crash_at_work(storage, MAX_CLAIMS + 1, saving=True)
    async with Workshop(storage) as last:
        assert (await last.told(run)).of(FinalResponse)


class Later(SystemClock):
    """The real clock, ten minutes on."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=10)


async def test_all_attempts_together_have_the_time_of_one_run(storage: Storage) -> None:
    async with Workshop(storage, slots=0) as shop:
        run = await shop.accept("hello")
    await crash_at_work(storage, 1)
    async with Workshop(storage, clock=Later(), run_timeout_ms=5 * 60_000) as last:
        assert (await last.told(run)).of(AgentError)[0].reason is ErrorReason.DEADLINE_EXCEEDED


async def test_a_log_that_nobody_can_read_ends_all_the_same(memory: MemoryStorage, logs: list[EventDict]) -> None:
    async with Workshop(memory, slots=0) as shop:
        run = await shop.accept("hello")
    claimed = await memory.runs.claim_run("ann", run.run_id, "broken", lease_ms=LEASE_MS)
    assert claimed is not None
    garbage = StoredEvent(run.run_id, claimed.last_seq + 1, b"\xff\xff\xff")
    await memory.events.append([Append(run.run_id, claimed.epoch, claimed.last_seq, [garbage])])
    await memory.runs.release(run.run_id, claimed.epoch)
    async with Workshop(memory, lease_ms=1) as shop:
        async with await shop.broadcast.watch(ANN, run.run_id, claimed.last_seq + 1) as watch:
            last = [event async for batch in watch for event in batch]
        assert [event.terminal for event in last] == [True]
        assert (await shop.now(run)).error_reason == "WORKER_LOST"
    assert [entry["event"] for entry in logs].count("log_unreadable") == 1


@pytest.mark.parametrize("times", [1, 5])
async def test_graceful_handovers_never_count(storage: Storage, times: int) -> None:
    async with Workshop(storage, slots=0) as shop:
        run = await shop.accept("hello")
    for _ in range(times):
        gate = Gate(is_open=False)

        async def script(work: Work, gate: Gate = gate) -> FinalResponse:
            await gate.passage()
            return await answer(work)

        async with Workshop(storage) as shop:
            shop.supervisor.scripts["hello"] = script
            await gate.reached()
    async with Workshop(storage) as last:
        assert (await last.told(run)).of(FinalResponse)
