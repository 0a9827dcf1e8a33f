"""A worker that stops leaves its runs where the next one can go on."""

import asyncio

import pytest
from pydantic import BaseModel

from agent_service.engine.events import (
    AgentCompleted,
    AgentProgress,
    CompletionStatus,
    FinalResponse,
    JsonObject,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
)
from agent_service.engine.tool import Tool, ToolContext
from agent_service.engine.work import Work
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.records import RunStatus
from tests.support.claims import with_claim_under_way
from tests.support.gates import Gate, is_stuck, settle
from tests.support.workshop import ANN, Script, Workshop, a_tool, answer, call_tool, held, say, think


def looking(gate: Gate, ran: list[str]) -> Script:
    """Return a script that calls one tool, waits at the gate, calls another, and answers."""

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await call_tool(work, "one", "a")
        await gate.passage()
        await call_tool(work, "two", "b")
        ran.append("answered")
        return await answer(work)

    return script


def noting(name: str, ran: list[str]) -> Tool[BaseModel]:
    """Return a tool that notes that it ran."""

    async def run(_: ToolContext) -> JsonObject:
        ran.append(name)
        return {}

    return a_tool(name, run)


async def test_a_draining_worker_claims_nothing_more(memory: MemoryStorage) -> None:
    async with Workshop(memory) as shop:
        await shop.worker.drain(grace_ms=0)
        run = await shop.accept("hello")
        await settle()
        assert (await shop.now(run)).status is RunStatus.QUEUED


async def test_a_short_run_ends_within_the_grace(storage: Storage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(storage) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await shop.accept("hello")
        await gate.reached()
        stopping = asyncio.create_task(shop.stop(grace_ms=10_000))
        assert await is_stuck(stopping)
        gate.open()
        await stopping
        assert (await shop.now(run)).status is RunStatus.COMPLETED


async def test_a_run_is_handed_over_at_a_safe_point(storage: Storage) -> None:
    gate, ran = Gate(is_open=False), list[str]()
    tools = [noting("one", ran), noting("two", ran)]
    async with Workshop(storage, tools=tools) as shop:
        shop.supervisor.scripts["hello"] = looking(gate, ran)
        run = await shop.accept("hello")
        await gate.reached()
        stopping = asyncio.create_task(shop.stop(grace_ms=10_000))
        await is_stuck(stopping)
        gate.open()
        await stopping
        left = await shop.now(run)
        assert (left.status, left.worker_id, left.claims) == (RunStatus.RUNNING, None, 0)
        assert (await shop.so_far(run)).kinds()[-1] == "ToolCompleted"
    async with Workshop(storage, tools=tools) as heir:
        heir.supervisor.scripts["hello"] = looking(gate, ran)
        told = await heir.told(run)
        assert ran == ["one", "two", "answered"]
        assert [body.tool_name for body in told.of(ToolExecuting)] == ["one", "two"]
        assert sorted(set(told.attempts)) == [1, 2]
        assert [body.stage for body in told.of(AgentProgress)] == [ProgressStage.RESUMED]


async def test_a_run_that_reaches_no_safe_point_is_stopped_after_the_grace(storage: Storage) -> None:
    gate, ran = Gate(is_open=False), list[str]()

    async def stuck(_: ToolContext) -> JsonObject:
        ran.append("look")
        await gate.passage()
        return {}

    async def script(work: Work) -> FinalResponse:
        await say(work, "Perhaps")
        await think(work)
        await call_tool(work, "look")
        return await answer(work)

    async with Workshop(storage, tools=[a_tool("look", stuck)]) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        await gate.reached()
        await shop.stop(grace_ms=0)
        left = await shop.now(run)
        assert (left.status, left.worker_id, left.claims) == (RunStatus.RUNNING, None, 0)
    gate.open()
    async with Workshop(storage, tools=[a_tool("look", stuck)]) as heir:

        async def rest(work: Work) -> FinalResponse:
            await call_tool(work, "look")
            return await answer(work)

        heir.supervisor.scripts["hello"] = rest
        told = await heir.told(run)
        assert ran == ["look", "look"]
        assert len(told.of(ToolExecuting)) == len(told.of(ToolCompleted)) == 1
        assert told.of(FinalResponse)[0].content == "You said hello."


async def test_nothing_is_emitted_once_a_run_is_handed_over(memory: MemoryStorage) -> None:
    gate, emitted = Gate(is_open=False), asyncio.Event()

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await gate.passage()
        for _ in range(3):
            # A supervisor that does not understand what it is told.
            try:
                await work.emitter.emit("data", AgentProgress(ProgressStage.STEP, "On."))
            except Exception:  # noqa: BLE001, S112 - that is the point
                continue
        emitted.set()
        await work.emitter.emit("data", AgentProgress(ProgressStage.STEP, "On and on."))
        raise AssertionError("unreachable")

    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        await gate.reached()
        stopping = asyncio.create_task(shop.stop(grace_ms=10_000))
        await is_stuck(stopping)
        gate.open()
        await stopping
        assert emitted.is_set()
        assert (await shop.so_far(run)).kinds() == ["AgentStarted", "AgentThinking", "AgentProgress"]


async def test_a_run_whose_claim_is_under_way_when_the_worker_drains_is_handed_over(memory: MemoryStorage) -> None:
    gate = Gate(is_open=False)
    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = held(gate)
        run = await with_claim_under_way(shop, "hello")
        stopping = asyncio.create_task(shop.stop(grace_ms=0))
        assert await is_stuck(stopping)
        shop.storage.returns["claim"].open()
        await stopping
        left = await shop.now(run)
        assert (left.status, left.worker_id) == (RunStatus.RUNNING, None)


async def test_a_run_that_is_opening_when_the_worker_drains_is_handed_over_at_its_safe_point(
    memory: MemoryStorage,
) -> None:
    async def script(work: Work) -> FinalResponse:
        await think(work)
        await work.emitter.emit("data", AgentProgress(ProgressStage.STEP, "On."))
        raise AssertionError("the run was not handed over")

    async with Workshop(memory, slots=0) as before:
        run = await before.accept("hello")
    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = script
        shop.storage.log.reads.close()
        await shop.storage.log.reads.reached()
        stopping = asyncio.create_task(shop.stop(grace_ms=10_000))
        await is_stuck(stopping)
        shop.storage.log.reads.open()
        await stopping
        left = await shop.now(run)
        assert (left.status, left.worker_id) == (RunStatus.RUNNING, None)


@pytest.mark.parametrize("grace_ms", [0, 10_000], ids=["stopped", "at a safe point"])
async def test_a_cancellation_during_the_handover_is_kept_for_the_next_worker(
    memory: MemoryStorage, grace_ms: int
) -> None:
    gate = Gate(is_open=False)

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await gate.passage()
        await work.emitter.emit("data", AgentProgress(ProgressStage.STEP, "On."))
        raise AssertionError("the run was not handed over")

    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        await gate.reached()
        shop.storage.gates["release"].close()
        stopping = asyncio.create_task(shop.stop(grace_ms=grace_ms))
        if grace_ms:
            await is_stuck(stopping)
            gate.open()
        await shop.storage.gates["release"].reached()
        await shop.runs.cancel(ANN, run_id=run.run_id)
        shop.storage.gates["release"].open()
        await stopping
        assert (await shop.now(run)).worker_id is None
    async with Workshop(memory) as heir:
        assert (await heir.told(run)).of(AgentCompleted)[0].status is CompletionStatus.CANCELLED
