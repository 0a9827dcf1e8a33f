"""Record journals: play each script that has no journal yet on a real engine, and keep what it committed.

Usage, from the root of the repository: ``python -m tests.data.journals.record``. A journal that is there is never
written again; a new script here gets its own. Then ``pytest tests/contract --update-scenarios`` writes what is expected
of the new one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import grpc
from pydantic import BaseModel

from agent_service.engine.attempt import MAX_CLAIMS
from agent_service.engine.clock import SystemIds
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import (
    AgentHandoff,
    AgentProgress,
    AgentThinking,
    AnswerSource,
    ApprovalDecision,
    ApprovalRequested,
    ApprovalResolved,
    Effect,
    FinalResponse,
    JsonObject,
    PlannedStep,
    ProgressStage,
    ToolExecuting,
)
from agent_service.engine.tool import Tool, ToolContext, ToolError
from agent_service.engine.work import Work
from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import AgentServiceStub
from storage.memory import MemoryStorage
from storage.records import RunRecord
from tests.support.deployment import Deployment
from tests.support.gates import Gate
from tests.support.journals import add_journal, read_journals
from tests.support.workshop import ANN, Script, Workshop, a_tool, answer, call_agreed_tool, call_tool, held, say, think

PIECES: Final = ("Your workload cost **$4,212.87**.\n\n", "| Model | Cost |\n|---|--:|\n", "| `gpt-4o` | $2,816.40 |\n")


async def _measure(context: ToolContext) -> JsonObject:
    await context.progress("Half of the rows.", 0.5)
    rows: list[JsonObject] = [
        {"model": "gpt-4o", "requests": 12_904, "share": 0.669},
        {"model": "Zoë ☂", "requests": 0, "share": None},
    ]
    return {"total_usd": 4_212.87, "by_model": rows, "exact": True, "largest": 2**53 - 1}


async def _refuse(_: ToolContext) -> JsonObject:
    raise ToolError("There is no column with durations. Name it, or ask about cost.")


async def _list_all(_: ToolContext) -> JsonObject:
    return {"rows": [{"number": number, "text": "x" * 20} for number in range(2_000)]}


async def _nothing(_: ToolContext) -> JsonObject:
    return {}


def _stuck(gate: Gate) -> Callable[[ToolContext], Awaitable[JsonObject]]:
    async def run(_: ToolContext) -> JsonObject:
        await gate.passage()
        return {}

    return run


@asynccontextmanager
async def _empty_storage() -> AsyncIterator[MemoryStorage]:
    storage = MemoryStorage(lambda: datetime.now(UTC))
    yield storage
    await storage.close()


async def _log(storage: MemoryStorage, run: RunRecord) -> list[bytes]:
    stored = await storage.events.read(run.user_id, run.run_id, 0, max_events=10_000, max_bytes=1 << 28)
    return [event.data for event in stored]


async def _plan(work: Work) -> None:
    emitter = work.emitter
    await think(work, "Find out what is asked, and which data there is.")
    await emitter.emit(
        "triage",
        AgentProgress(ProgressStage.CLASSIFIED, "A question of cost.", intent="cost_analysis", confidence=0.93),
    )
    steps = (PlannedStep("data", "Measure the cost by model"), PlannedStep("reporting", "Write the answer"))
    await emitter.emit("supervisor", AgentProgress(ProgressStage.PLANNED, "Two steps.", planned_steps=steps))
    await emitter.emit("triage", AgentHandoff("triage", "data", "There is a log to measure."))
    await emitter.emit("data", AgentProgress(ProgressStage.STEP, "Measuring", step=1, total_steps=2, fraction=0.5))


async def tools_and_text() -> Sequence[bytes]:
    """A plan, a tool that answers, one that fails, and an answer in pieces."""

    async def script(work: Work) -> FinalResponse:
        await _plan(work)
        await call_tool(work, "cost_breakdown", "a", group_by="model", api_key="sk-secret")
        await call_tool(work, "latency", "b")
        for piece in PIECES:
            await say(work, piece)
        return FinalResponse(
            work.message_id,
            "".join(PIECES),
            missing_data=("Latency: the log has no durations.",),
            suggestions=("What would gpt-4o-mini cost?", "When are the peaks?"),
        )

    return await _played(script, a_tool("cost_breakdown", _measure), a_tool("latency", _refuse))


async def text_taken_back() -> Sequence[bytes]:
    """Text that is dropped by a step, and an answer that differs from what was streamed."""

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await say(work, "Perhaps it is ")
        await say(work, "the model.")
        await work.emitter.emit("data", AgentProgress(ProgressStage.STEP, "Anew.", discard_partial=True))
        await say(work, "It is the prompt 👩🏽‍💻 \u202eשלמ\u202c")
        await work.emitter.emit("data", AgentProgress(ProgressStage.DEGRADED, "No prices for one model."))
        return FinalResponse(work.message_id, "It is **not** the model.", degraded=True)

    return await _played(script)


async def cancelled() -> Sequence[bytes]:
    """A run that is stopped while a tool works."""
    gate = Gate(is_open=False)

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await say(work, "So far")
        await call_tool(work, "slow")
        return await answer(work)

    async with _empty_storage() as storage, Workshop(storage, tools=[a_tool("slow", _stuck(gate))]) as shop:
        shop.supervisor.scripts["How much?"] = script
        run = await shop.accept("How much?")
        await gate.reached()
        await shop.runs.cancel(ANN, run_id=run.run_id, reason="The user pressed stop.")
        await shop.told(run)
        return await _log(storage, run)


async def failed() -> Sequence[bytes]:
    """A run whose model went away."""

    async def script(work: Work) -> FinalResponse:
        await _plan(work)
        raise ApexError(
            ErrorReason.MODEL_UNAVAILABLE,
            "The language model did not answer.",
            recovery_suggestions=("Try again in a minute.", "Ask without a model."),
        )

    return await _played(script)


async def taken_over() -> Sequence[bytes]:
    """A run whose first worker dies: text is dropped, a safe call runs again, an unsafe one does not."""
    gate = Gate(is_open=False)
    tools = [a_tool("safe", _stuck(gate)), a_tool("unsafe", _stuck(gate), Effect.UNSAFE)]

    async def script(work: Work) -> FinalResponse:
        await say(work, "Perhaps")
        await think(work)
        await asyncio.gather(call_tool(work, "safe", "a"), call_agreed_tool(work, "unsafe", "b"))
        return await answer(work)

    async with _empty_storage() as storage:
        async with Workshop(storage, tools=tools) as first:
            first.supervisor.scripts["How much?"] = script
            run = await first.accept("How much?")
            await gate.reached(2)
            await first.crash()
        gate.open()
        async with Workshop(storage, tools=tools) as second:
            second.supervisor.scripts["How much?"] = script
            await second.told(run)
        return await _log(storage, run)


async def worker_lost() -> Sequence[bytes]:
    """A run that loses every worker in the middle of an unsafe call."""
    async with _empty_storage() as storage:
        async with Workshop(storage, slots=0) as shop:
            run = await shop.accept("How much?")
        for _ in range(MAX_CLAIMS):
            gate = Gate(is_open=False)

            async def script(work: Work, gate: Gate = gate) -> FinalResponse:
                if not work.emitter.state.tools:
                    await think(work)
                    executing = ToolExecuting("call", "unsafe", "Posts it.", {}, Effect.UNSAFE)
                    await work.emitter.commit("data", executing)
                await gate.passage()
                return await answer(work)

            async with Workshop(storage, tools=[a_tool("unsafe", _nothing, Effect.UNSAFE)]) as shop:
                shop.supervisor.scripts["How much?"] = script
                await gate.reached()
                await shop.crash()
        async with Workshop(storage) as last:
            await last.told(run)
        return await _log(storage, run)


async def queued() -> Sequence[bytes]:
    """A run that waits for the one before it in its thread."""
    gate = Gate(is_open=False)
    async with _empty_storage() as storage, Workshop(storage) as shop:
        shop.supervisor.scripts["First"] = held(gate)
        first = await shop.accept("First")
        await gate.reached()
        second = await shop.accept("Second", thread_id=first.thread_id)
        gate.open()
        await shop.told(second)
        return await _log(storage, second)


async def approvals() -> Sequence[bytes]:
    """Every decision about a call that waits for a person; the last one is open when the run is cancelled."""
    decisions = [decision for decision in ApprovalDecision if decision is not ApprovalDecision.CANCELLED]
    gate = Gate(is_open=False)

    async def ask(work: Work) -> str:
        approval_id = SystemIds().new()
        expires = datetime.now(UTC) + timedelta(hours=1)
        request = ApprovalRequested(approval_id, "apply_policy", {"limit_usd": 100}, "It changes a limit.", expires)
        await work.emitter.emit("actions", request)
        return approval_id

    async def script(work: Work) -> FinalResponse:
        await think(work)
        for decision in decisions:
            resolved = ApprovalResolved(await ask(work), decision, "ann", "As I said.")
            await work.emitter.emit("actions", resolved)
        await ask(work)
        await gate.passage()
        return await answer(work)

    async with _empty_storage() as storage, Workshop(storage) as shop:
        shop.supervisor.scripts["Limit it"] = script
        run = await shop.accept("Limit it")
        await gate.reached()
        await shop.runs.cancel(ANN, run_id=run.run_id, reason="")
        await shop.told(run)
        return await _log(storage, run)


async def artifact() -> Sequence[bytes]:
    """A tool's result that is too large for the log, and becomes a file of the answer."""

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await call_tool(work, "list_all")
        return FinalResponse(work.message_id, "All of it.", artifact_ids=tuple(work.emitter.state.artifact_ids))

    return await _played(script, a_tool("list_all", _list_all))


async def tool_ends() -> Sequence[bytes]:
    """Calls that are stopped at their timeout, not permitted, and repeatable."""
    tools = [
        a_tool("slow", _stuck(Gate(is_open=False)), timeout_ms=1),
        a_tool("forbidden", _nothing, Effect.UNSAFE, scopes=frozenset({"actions:write"})),
        a_tool("repeatable", _nothing, Effect.IDEMPOTENT),
    ]

    async def script(work: Work) -> FinalResponse:
        await think(work)
        for number, tool in enumerate(tools):
            await call_tool(work, tool.name, f"{number}")
        return await answer(work)

    return await _played(script, *tools)


async def cached_answer() -> Sequence[bytes]:
    """An earlier answer to the same question, streamed all the same."""

    async def script(work: Work) -> FinalResponse:
        await work.emitter.emit("supervisor", AgentThinking("This was asked before, about the same data.", 1, 1))
        for piece in PIECES:
            await say(work, piece)
        missing = ("Latency: the log has no durations.",)
        return FinalResponse(work.message_id, "".join(PIECES), AnswerSource.CACHE, degraded=True, missing_data=missing)

    return await _played(script)


async def analysis() -> Sequence[bytes]:
    """A whole service as people run it: the offline model and the data tools on the sample dataset."""
    with TemporaryDirectory() as folder:
        deployment = Deployment(Path(folder))
        deployment.start_service()
        assert deployment.service is not None
        try:
            return await asyncio.to_thread(_ask, deployment, "Analyze my AI costs by model, and when are the peaks?")
        finally:
            deployment.service.terminate()


def _ask(deployment: Deployment, content: str) -> list[bytes]:
    metadata = (("authorization", f"Bearer {deployment.token('ann')}"),)
    with grpc.insecure_channel(deployment.grpc_target) as channel:
        run = list(AgentServiceStub(channel).RunAgent(pb.RunAgentRequest(content=content), metadata=metadata))
        watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            "/apex.agent.v1.AgentService/WatchRun"
        )
        request = pb.WatchRunRequest(run_id=run[0].run_id).SerializeToString()
        return list(watch(request, metadata=metadata))


async def _played(script: Script, *tools: Tool[BaseModel]) -> Sequence[bytes]:
    async with _empty_storage() as storage, Workshop(storage, tools=tools) as shop:
        shop.supervisor.scripts["How much?"] = script
        run = await shop.accept("How much?")
        await shop.told(run)
        return await _log(storage, run)


SCRIPTS: Final[Mapping[str, Callable[[], Awaitable[Sequence[bytes]]]]] = {
    script.__name__: script
    for script in (
        tools_and_text,
        text_taken_back,
        cancelled,
        failed,
        taken_over,
        worker_lost,
        queued,
        approvals,
        artifact,
        tool_ends,
        cached_answer,
        analysis,
    )
}


async def record() -> None:
    """Record what is not there yet."""
    for name in sorted(SCRIPTS.keys() - read_journals().keys()):
        add_journal(name, await SCRIPTS[name]())


if __name__ == "__main__":
    asyncio.run(record())
