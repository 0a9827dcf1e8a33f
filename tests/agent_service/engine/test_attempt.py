"""One run at work: how it ends, whatever its supervisor does."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from structlog.typing import EventDict

from agent_service.engine.emitter import MAX_EVENT_BYTES
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import (
    AgentCompleted,
    AgentError,
    CompletionStatus,
    Effect,
    FinalResponse,
    JsonObject,
    ToolCompleted,
    ToolStatus,
    Usage,
)
from agent_service.engine.tool import ToolContext
from agent_service.engine.work import Work
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.records import MessageRole, RunStatus
from tests.support.gates import Gate, settle
from tests.support.timing import fastest
from tests.support.waiting import eventually
from tests.support.workshop import ANN, Script, Workshop, a_tool, answer, call_tool, say, think

SECRET = "postgresql://root:hunter2@db/prod"


def stuck_tool(gate: Gate, effect: Effect = Effect.READ_ONLY) -> Callable[[ToolContext], Awaitable[JsonObject]]:
    async def run(_: ToolContext) -> JsonObject:
        await gate.passage()
        return {"effect": effect.value}

    return run


def use(name: str) -> Script:
    """Return a script that calls one tool and answers."""

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await call_tool(work, name)
        return await answer(work)

    return script


async def test_a_run_ends_with_its_answer_message_and_status_at_once(storage: Storage) -> None:
    async with Workshop(storage) as shop:
        run = await shop.accept("hello")
        told = await shop.told(run)
        assert told.kinds() == ["AgentStarted", "AgentThinking", "PartialResult", "FinalResponse", "AgentCompleted"]
        assert told.end == AgentCompleted(
            "supervisor", CompletionStatus.SUCCESS, "Done.", told.of(AgentCompleted)[0].execution_time_ms, Usage()
        )
        ended = await shop.now(run)
        assert (ended.status, ended.error_reason, ended.worker_id) == (RunStatus.COMPLETED, None, None)
        messages = (await shop.threads.list_messages(ANN, run.thread_id, page_size=10, page_token="")).items
        assert [(message.role, message.content) for message in messages] == [
            (MessageRole.USER, "hello"),
            (MessageRole.ASSISTANT, "You said hello."),
        ]


async def test_a_supervisor_sees_the_messages_of_earlier_runs(storage: Storage) -> None:
    seen: list[str] = []

    async def script(work: Work) -> FinalResponse:
        seen.extend(message.content for message in work.history)
        return await answer(work)

    async with Workshop(storage) as shop:
        shop.supervisor.scripts["again"] = script
        first = await shop.accept("hello")
        second = await shop.accept("again", thread_id=first.thread_id)
        await shop.told(second)
        assert seen == ["hello", "You said hello."]


async def test_an_unexpected_error_is_told_by_its_id_and_nothing_more(
    memory: MemoryStorage, logs: list[EventDict]
) -> None:
    async def script(_: Work) -> FinalResponse:
        raise RuntimeError(f"cannot connect to {SECRET}")

    async with Workshop(memory, tools=[a_tool("look", stuck_tool(Gate()))]) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        told = await shop.told(run)
        error = told.of(AgentError)[0]
        assert (error.reason, error.retryable) == (ErrorReason.INTERNAL, True)
        assert error.error_id in error.message
        assert (await shop.now(run)).error_reason == "INTERNAL"
        stored = await memory.events.read("ann", run.run_id, 0, max_events=100, max_bytes=1 << 20)
        assert b"hunter2" not in b"".join(event.data for event in stored)
        logged = next(entry for entry in logs if entry["event"] == "run_failed")
        assert logged["error_id"] == error.error_id
        assert "hunter2" in str(logged["exc_info"])


async def test_an_error_for_people_reaches_them_as_it_is(memory: MemoryStorage) -> None:
    async def script(work: Work) -> FinalResponse:
        await say(work, "So far")
        raise ApexError(ErrorReason.BUDGET_EXCEEDED, "Too dear.", recovery_suggestions=("Pay more.",))

    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        error = (await shop.told(run)).of(AgentError)[0]
        assert (error.reason, error.message, error.retryable) == (ErrorReason.BUDGET_EXCEEDED, "Too dear.", False)
        assert error.recovery_suggestions == ("Pay more.",)
        assert (await shop.now(run)).status is RunStatus.FAILED


async def test_an_answer_that_cannot_be_written_fails_the_run(memory: MemoryStorage) -> None:
    async def too_large(work: Work) -> FinalResponse:
        return FinalResponse(work.message_id, "x" * MAX_EVENT_BYTES)

    async def other_message(work: Work) -> FinalResponse:
        await say(work, "Text")
        return FinalResponse("0197f000-0000-7000-8000-000000000009", "Text")

    async def no_text(work: Work) -> FinalResponse:
        return FinalResponse(work.message_id, "half a character: \ud83d")

    async with Workshop(memory) as shop:
        shop.supervisor.scripts |= {"large": too_large, "other": other_message, "none": no_text}
        for content in ("large", "other", "none"):
            told = await shop.told(await shop.accept(content))
            assert told.of(AgentError)[0].reason is ErrorReason.INTERNAL
            assert not told.of(FinalResponse)


async def test_an_event_that_cannot_be_written_leaves_no_gap(memory: MemoryStorage) -> None:
    async def script(work: Work) -> FinalResponse:
        with pytest.raises(Exception, match="bytes"):
            await say(work, "x" * MAX_EVENT_BYTES)
        with pytest.raises(UnicodeEncodeError):
            await think(work, "\ud83d")
        return await answer(work)

    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = script
        told = await shop.told(await shop.accept("hello"))
        assert told.of(FinalResponse)[0].content == "You said hello."


async def test_a_run_that_takes_too_long_is_stopped_with_its_tool(memory: MemoryStorage) -> None:
    async with Workshop(memory, tools=[a_tool("look", stuck_tool(Gate(is_open=False)))], run_timeout_ms=60) as shop:
        shop.supervisor.scripts["hello"] = use("look")
        told = await shop.told(await shop.accept("hello"))
        assert told.of(AgentError)[0].reason is ErrorReason.DEADLINE_EXCEEDED
        assert [body.status for body in told.of(ToolCompleted)] == [ToolStatus.CANCELLED]


@pytest.mark.parametrize("timeout_ms", [60, 3_600_000])
async def test_a_run_may_ask_for_less_time_but_not_for_more(memory: MemoryStorage, timeout_ms: int) -> None:
    async def script(_: Work) -> FinalResponse:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    async with Workshop(memory, run_timeout_ms=100) as shop:
        shop.supervisor.scripts["hello"] = script
        error = (await shop.told(await shop.accept("hello", timeout_ms=timeout_ms))).of(AgentError)[0]
        assert error.reason is ErrorReason.DEADLINE_EXCEEDED
        assert f"{min(timeout_ms, 100) / 1000:g} s" in error.message


async def test_a_timeout_of_the_supervisors_own_is_not_the_runs(memory: MemoryStorage) -> None:
    async def script(_: Work) -> FinalResponse:
        raise TimeoutError("of a library")

    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = script
        assert (await shop.told(await shop.accept("hello"))).of(AgentError)[0].reason is ErrorReason.INTERNAL


async def test_a_cancellation_that_nobody_asked_for_fails_the_run(memory: MemoryStorage) -> None:
    async def script(_: Work) -> FinalResponse:
        raise asyncio.CancelledError("of a library")

    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = script
        assert (await shop.told(await shop.accept("hello"))).of(AgentError)[0].reason is ErrorReason.INTERNAL


async def swallow_with_answer(work: Work) -> FinalResponse:
    """Answer a cancellation with a result."""
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        return await answer(work)
    raise AssertionError("unreachable")


async def swallow_with_error(_: Work) -> FinalResponse:
    """Answer a cancellation with another error."""
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        raise RuntimeError("the connection was closed") from None
    raise AssertionError("unreachable")


@pytest.mark.parametrize("script", [swallow_with_answer, swallow_with_error])
async def test_a_run_that_was_told_to_stop_is_cancelled_whatever_its_supervisor_makes_of_it(
    memory: MemoryStorage, script: Script
) -> None:
    async with Workshop(memory) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        await shop.runs.cancel(ANN, run_id=(await begun(shop, run.run_id)))
        assert (await shop.told(run)).of(AgentCompleted)[0].status is CompletionStatus.CANCELLED


async def begun(shop: Workshop, run_id: str) -> str:
    """Wait until a supervisor is at work, and return the id."""
    await eventually(lambda: bool(shop.supervisor.at_work), what="a supervisor is at work")
    return run_id


async def test_a_running_tool_is_cancelled_within_half_a_second(storage: Storage) -> None:
    async def cancel() -> float:
        gate = Gate(is_open=False)
        async with Workshop(storage, tools=[a_tool("look", stuck_tool(gate))]) as shop:
            shop.supervisor.scripts["hello"] = use("look")
            run = await shop.accept("hello")
            await gate.reached()
            began = time.monotonic()
            await shop.runs.cancel(ANN, run_id=run.run_id, reason="Enough.")
            told = await shop.told(run)
            span = time.monotonic() - began
            assert [body.status for body in told.of(ToolCompleted)] == [ToolStatus.CANCELLED]
            assert told.of(AgentCompleted)[0].message == "Enough."
            assert (await shop.now(run)).status is RunStatus.CANCELLED
        return span

    assert await fastest(cancel, enough_s=0.5) < 0.5


async def test_a_tool_that_ignores_its_cancellation_is_left_behind_in_time(memory: MemoryStorage) -> None:
    async def cancel() -> float:
        gate, heard = Gate(is_open=False), []

        async def deaf(context: ToolContext) -> JsonObject:
            while not gate.is_open:
                try:
                    await gate.passage()
                except asyncio.CancelledError:
                    heard.append("cancelled")
            # Nobody listens any more: neither the log nor the run may notice.
            await context.progress("Still here", 0.9)
            return {}

        async with Workshop(memory, tools=[a_tool("look", deaf)]) as shop:
            shop.supervisor.scripts["hello"] = use("look")
            run = await shop.accept("hello")
            await gate.reached()
            began = time.monotonic()
            await shop.runs.cancel(ANN, run_id=run.run_id)
            told = await shop.told(run)
            span = time.monotonic() - began
            assert [body.status for body in told.of(ToolCompleted)] == [ToolStatus.CANCELLED]
            assert heard == ["cancelled"]
            gate.open()
            await settle()
            assert len((await shop.so_far(run)).events) == len(told.events)
        return span

    assert await fastest(cancel, enough_s=0.5) < 0.5


async def test_tools_of_one_step_run_side_by_side(memory: MemoryStorage) -> None:
    one, two = Gate(is_open=False), Gate(is_open=False)

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await asyncio.gather(call_tool(work, "one", "a"), call_tool(work, "two", "b"))
        return await answer(work)

    async with Workshop(memory, tools=[a_tool("one", stuck_tool(one)), a_tool("two", stuck_tool(two))]) as shop:
        shop.supervisor.scripts["hello"] = script
        run = await shop.accept("hello")
        await asyncio.gather(one.reached(), two.reached())
        two.open()
        await settle()
        one.open()
        told = await shop.told(run)
        assert [body.tool_name for body in told.of(ToolCompleted)] == ["two", "one"]
