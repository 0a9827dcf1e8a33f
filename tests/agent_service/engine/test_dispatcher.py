"""The one way to run a tool: what is let through, what is told, and what is kept."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from pydantic import BaseModel, Field
from structlog.typing import EventDict

from agent_service.engine.dispatcher import (
    MAX_ID_CHARACTERS,
    MAX_LARGE_RESULT_BYTES,
    MAX_RESULT_BYTES,
    MAX_TEXT_CHARACTERS,
)
from agent_service.engine.events import (
    AgentCompleted,
    AgentProgress,
    AgentThinking,
    ArtifactCreated,
    Effect,
    FinalResponse,
    JsonObject,
    JsonValue,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
)
from agent_service.engine.limits import ToolLimits
from agent_service.engine.ports import ToolCall, ToolOutcome
from agent_service.engine.tool import Tool, ToolContext, ToolError, ToolOutput
from agent_service.engine.work import Work
from storage.memory import MemoryStorage
from tests.support.gates import Gate, is_stuck, settle
from tests.support.workshop import ANN, BOB, NoArgs, Told, Workshop, a_tool, answer, call_tool, think, user

SECRET = "sk-0123456789abcdef0123456789"


class MonthArgs(BaseModel):
    """Arguments with a bound."""

    month: int = Field(ge=1, le=12)
    api_key: str = ""


async def by_month(_: ToolContext, args: BaseModel) -> ToolOutput:
    assert isinstance(args, MonthArgs)
    return ToolOutput(f"Month {args.month}.", {"month": args.month})


MONTHLY: Tool[BaseModel] = Tool("monthly", "Sums up a month. Slowly.", MonthArgs, Effect.READ_ONLY, 1_000, by_month)


class Calls:
    """Plays calls in a run of its own and keeps what the model would be told."""

    def __init__(self, memory: MemoryStorage, *tools: Tool[BaseModel], limits: ToolLimits | None = None) -> None:
        self.shop = Workshop(memory, tools=tools, limits=limits or ToolLimits())
        self.outcomes: list[ToolOutcome] = []
        self._names = frozenset(tool.name for tool in tools)

    async def play(
        self, *calls: tuple[str, Mapping[str, JsonValue]], permitted: frozenset[str] | None = None, scope: str = ""
    ) -> Told:
        """Run the calls one after the other and return what the run told."""

        async def script(work: Work) -> FinalResponse:
            for number, (name, args) in enumerate(calls):
                call = ToolCall(f"call-{number}", name, args)
                names = self._names if permitted is None else permitted
                self.outcomes.append(await work.dispatcher.call("data", "1-data", call, names))
            return await answer(work)

        async with self.shop as shop:
            shop.supervisor.scripts["hello"] = script
            return await shop.told(await shop.accept("hello", user("ann", *scope.split())))


def single(told: Told) -> ToolCompleted:
    (completed,) = told.of(ToolCompleted)
    return completed


def failing(error: BaseException) -> Callable[[ToolContext], Awaitable[JsonObject]]:
    async def run(_: ToolContext) -> JsonObject:
        raise error

    return run


def giving(result: JsonObject) -> Callable[[ToolContext], Awaitable[JsonObject]]:
    async def run(_: ToolContext) -> JsonObject:
        return result

    return run


async def test_a_call_is_told_before_and_after_and_the_model_hears_the_same(memory: MemoryStorage) -> None:
    calls = Calls(memory, MONTHLY)
    told = await calls.play(("monthly", {"month": 6}))
    (executing,) = told.of(ToolExecuting)
    assert (executing.tool_call_id, executing.tool_name) == ("1-data.call-0", "monthly")
    assert (executing.description, executing.effect) == ("Sums up a month", Effect.READ_ONLY)
    assert executing.tool_args == {"month": 6}
    completed = single(told)
    assert (completed.status, completed.result_summary, completed.result) == (
        ToolStatus.SUCCESS,
        "Month 6.",
        {"month": 6},
    )
    assert calls.outcomes == [ToolOutcome(ToolStatus.SUCCESS, "Month 6.", {"month": 6}, "")]
    assert told.of(AgentCompleted)[0].usage.tool_calls == 1


async def test_the_call_is_committed_before_the_tool_runs(memory: MemoryStorage) -> None:
    seen: list[str] = []

    async def look(context: ToolContext) -> JsonObject:
        stored = await memory.events.read(context.user_id, context.run_id, 0, max_events=99, max_bytes=1 << 20)
        seen.append(stored[-1].data.decode(errors="replace"))
        return {}

    async with Workshop(memory, tools=(a_tool("look", look),)) as shop:
        commits = shop.storage.log.appends

        async def script(work: Work) -> FinalResponse:
            await think(work)
            await work.emitter.flush()
            commits.close()
            calling = asyncio.create_task(call_tool(work, "look", "call-0"))
            assert await is_stuck(calling)
            assert not seen
            commits.open()
            await calling
            return await answer(work)

        shop.supervisor.scripts["hello"] = script
        told = await shop.told(await shop.accept("hello"))
    assert isinstance(told.end, AgentCompleted)
    assert "call-0" in seen[0]


async def test_a_thought_comes_first_where_the_model_had_none(memory: MemoryStorage) -> None:
    calls = Calls(memory, MONTHLY)
    told = await calls.play(("monthly", {"month": 6}), ("monthly", {"month": 7}))
    assert told.kinds()[1:5] == ["AgentThinking", "ToolExecuting", "ToolCompleted", "ToolExecuting"]
    assert told.of(AgentThinking)[0].thought == "I use monthly for this."


async def test_secrets_in_arguments_are_not_told_but_given_to_the_tool(memory: MemoryStorage) -> None:
    given: list[str] = []

    async def run(_: ToolContext, args: BaseModel) -> ToolOutput:
        assert isinstance(args, MonthArgs)
        given.append(args.api_key)
        return ToolOutput("Done.", {})

    tool: Tool[BaseModel] = Tool("keyed", "Uses a key.", MonthArgs, Effect.IDEMPOTENT, 1_000, run)
    told = await Calls(memory, tool).play(("keyed", {"month": 1, "api_key": SECRET}))
    assert given == [SECRET]
    assert told.of(ToolExecuting)[0].tool_args == {"month": 1, "api_key": "[redacted]"}


async def test_arguments_that_are_too_large_to_show_are_not_shown(memory: MemoryStorage) -> None:
    note = "x" * (MAX_RESULT_BYTES - len(b'{"month":6,"note":""}'))
    largest: JsonObject = {"month": 6, "note": note}
    larger: JsonObject = {"month": 6, "note": f"{note}x"}
    other: JsonObject = {"month": 6, "note": f"{note}y"}
    told = await Calls(memory, MONTHLY).play(("monthly", largest), ("monthly", larger), ("monthly", other))
    shown = [executing.tool_args for executing in told.of(ToolExecuting)]
    assert shown[0] == largest
    size = f"{MAX_RESULT_BYTES + 1} bytes of arguments"
    assert [str(args["omitted"]).partition(",")[0] for args in shown[1:]] == [size, size]
    assert shown[1] != shown[2], "calls are known again by what is shown of their arguments"
    assert [completed.status for completed in told.of(ToolCompleted)] == [ToolStatus.SUCCESS] * 3


@pytest.mark.parametrize(
    ("args", "problem"), [({}, "month: Field required"), ({"month": 13}, "month"), ({"month": "six"}, "month")]
)
async def test_arguments_that_do_not_fit_are_explained(
    memory: MemoryStorage, args: Mapping[str, JsonValue], problem: str
) -> None:
    completed = single(await Calls(memory, MONTHLY).play(("monthly", args)))
    assert completed.status is ToolStatus.ERROR
    assert completed.error.startswith("The arguments do not fit monthly:")
    assert problem in completed.error


async def test_a_tool_that_the_agent_does_not_have_is_denied(memory: MemoryStorage) -> None:
    ran: list[str] = []

    async def note(_: ToolContext) -> JsonObject:
        ran.append("look")
        return {}

    calls = Calls(memory, MONTHLY, a_tool("look", note))
    told = await calls.play(("look", {}), ("unheard_of", {}), permitted=frozenset({"monthly"}))
    assert [body.status for body in told.of(ToolCompleted)] == [ToolStatus.DENIED] * 2
    assert calls.outcomes[0].error == "data has no tool 'look'. It has: monthly."
    assert not ran


async def test_a_tool_needs_its_scopes(memory: MemoryStorage) -> None:
    tool = a_tool("look", giving({}), scopes=frozenset({"databases:read", "admin"}))
    completed = single(await Calls(memory, tool).play(("look", {}), scope="admin"))
    assert (completed.status, completed.error) == (ToolStatus.DENIED, "look needs the scope databases:read.")
    assert (
        single(await Calls(memory, tool).play(("look", {}), scope="admin databases:read")).status is ToolStatus.SUCCESS
    )


async def test_a_tool_that_takes_too_long_is_stopped(memory: MemoryStorage) -> None:
    stopped: list[str] = []

    async def run(_: ToolContext) -> JsonObject:
        try:
            await Gate(is_open=False).passage()
            return {}
        finally:
            stopped.append("look")

    completed = single(await Calls(memory, a_tool("look", run, timeout_ms=30)).play(("look", {})))
    assert (completed.status, completed.error) == (ToolStatus.TIMEOUT, "look took longer than 30 ms and was stopped.")
    assert completed.execution_time_ms >= 30
    assert stopped == ["look"]


async def test_a_tool_that_was_left_behind_says_nothing_more(memory: MemoryStorage, logs: list[EventDict]) -> None:
    gate, errors = Gate(is_open=False), list[str]()

    async def deaf(context: ToolContext) -> JsonObject:
        while not gate.is_open:
            try:
                await gate.passage()
            except asyncio.CancelledError:
                continue
        try:
            await context.progress("Still here", 0.5)
        except ToolError as error:
            errors.append(str(error))
        return {}

    async def script(work: Work) -> FinalResponse:
        await work.dispatcher.call("data", "1-data", ToolCall("a", "deaf", {}), frozenset({"deaf"}))
        gate.open()
        await settle()
        return await answer(work)

    async with Workshop(memory, tools=[a_tool("deaf", deaf, timeout_ms=10)]) as shop:
        shop.supervisor.scripts["hello"] = script
        told = await shop.told(await shop.accept("hello"))
    assert errors == ["This call has ended."]
    assert not told.of(AgentProgress)
    assert [entry["tool"] for entry in logs if entry["event"] == "tool_left_behind"] == ["deaf"]


async def test_a_timeout_of_the_tools_own_is_not_the_dispatchers(memory: MemoryStorage) -> None:
    completed = single(await Calls(memory, a_tool("look", failing(TimeoutError("of a socket")))).play(("look", {})))
    assert completed.status is ToolStatus.ERROR


async def test_a_tool_that_gives_itself_up_does_not_stop_the_run(memory: MemoryStorage) -> None:
    told = await Calls(memory, a_tool("look", failing(asyncio.CancelledError()))).play(("look", {}))
    assert (single(told).status, single(told).error) == (ToolStatus.ERROR, "look gave up.")
    assert told.of(FinalResponse)


async def test_a_tools_own_words_are_told_and_an_unexpected_error_is_not(
    memory: MemoryStorage, logs: list[EventDict]
) -> None:
    said = failing(ToolError("There is no such dataset. Upload one."))
    broken = failing(RuntimeError(f"connect failed with {SECRET}"))
    told = await Calls(memory, a_tool("said", said), a_tool("broken", broken)).play(("said", {}), ("broken", {}))
    first, second = told.of(ToolCompleted)
    assert (first.status, first.error) == (ToolStatus.ERROR, "There is no such dataset. Upload one.")
    assert second.status is ToolStatus.ERROR
    assert SECRET not in second.error
    logged = next(entry for entry in logs if entry["event"] == "tool_failed")
    assert logged["error_id"] in second.error


async def test_texts_are_cut_to_their_bound(memory: MemoryStorage) -> None:
    long = "x" * (MAX_TEXT_CHARACTERS + 1)

    async def summary(_: ToolContext, __: BaseModel) -> ToolOutput:
        return ToolOutput(long, {})

    verbose: Tool[BaseModel] = Tool("verbose", "Says much.", NoArgs, Effect.READ_ONLY, 1_000, summary)
    told = await Calls(memory, verbose, a_tool("failing", failing(ToolError(long)))).play(
        ("verbose", {}), ("failing", {})
    )
    first, second = told.of(ToolCompleted)
    assert len(first.result_summary) == len(second.error) == MAX_TEXT_CHARACTERS


async def test_a_tool_reports_how_far_it_is(memory: MemoryStorage) -> None:
    async def run(context: ToolContext) -> JsonObject:
        await context.progress("Half", 0.5)
        return {"message": context.message}

    told = await Calls(memory, a_tool("look", run)).play(("look", {}))
    (progress,) = told.of(AgentProgress)
    assert (progress.stage, progress.message, progress.fraction) == (ProgressStage.TOOL, "Half", 0.5)
    assert progress.tool_call_id == single(told).tool_call_id
    assert single(told).result == {"message": "hello"}


@pytest.mark.parametrize("extra", [0, 1])
async def test_a_result_past_its_bound_becomes_an_artifact(memory: MemoryStorage, extra: int) -> None:
    result = {"text": "x" * (MAX_RESULT_BYTES - len(b'{"text":""}') + extra)}
    calls = Calls(memory, a_tool("look", giving(result)))
    told = await calls.play(("look", {}))
    completed, artifacts = single(told), told.of(ArtifactCreated)
    if not extra:
        assert (completed.result, completed.artifact_id, artifacts) == (result, "", [])
        return
    (artifact,) = artifacts
    assert (completed.result, completed.artifact_id) == (None, artifact.artifact_id)
    assert (artifact.name, artifact.media_type, artifact.size_bytes) == (
        "look.json",
        "application/json",
        MAX_RESULT_BYTES + 1,
    )
    record = await memory.files.get("ann", artifact.artifact_id)
    assert record.run_id == told.events[0].run_id
    content = b"".join([piece async for piece in memory.files.read("ann", artifact.artifact_id)])
    assert content == f'{{"text":"{result["text"]}"}}'.encode()
    assert artifact.artifact_id in calls.outcomes[0].summary


async def test_a_result_that_is_far_too_large_is_refused(memory: MemoryStorage) -> None:
    huge = giving({"text": "x" * MAX_LARGE_RESULT_BYTES})
    told = await Calls(memory, a_tool("look", huge)).play(("look", {}))
    assert single(told).status is ToolStatus.ERROR
    assert f"larger than {MAX_LARGE_RESULT_BYTES} bytes" in single(told).error
    assert not (await memory.files.list("ann", page_size=9)).items


async def test_a_result_that_is_no_json_ends_the_call_and_not_the_run(memory: MemoryStorage) -> None:
    told = await Calls(memory, a_tool("look", giving({"text": "half a character: \ud83d"}))).play(("look", {}))
    assert single(told).status is ToolStatus.ERROR
    assert told.of(FinalResponse)


async def test_a_long_id_of_a_provider_fits_the_event(memory: MemoryStorage) -> None:
    async def script(work: Work) -> FinalResponse:
        for call_id in ("x" * 200, "x" * 201, "x" * (MAX_ID_CHARACTERS - len("1-data."))):
            await work.dispatcher.call("data", "1-data", ToolCall(call_id, "look", {}), frozenset({"look"}))
        return await answer(work)

    async with Workshop(memory, tools=[a_tool("look", giving({}))]) as shop:
        shop.supervisor.scripts["hello"] = script
        ids = [body.tool_call_id for body in (await shop.told(await shop.accept("hello"))).of(ToolExecuting)]
    assert len(set(ids)) == 3
    assert all(len(one) <= MAX_ID_CHARACTERS for one in ids)
    assert ids[2].startswith("1-data.x")


async def test_an_id_that_a_provider_repeats_is_another_call(memory: MemoryStorage) -> None:
    ran: list[int] = []

    async def count(_: ToolContext) -> JsonObject:
        ran.append(len(ran))
        return {"number": len(ran)}

    async def script(work: Work) -> FinalResponse:
        async def call() -> ToolOutcome:
            return await work.dispatcher.call("data", "1-data", ToolCall("call_0", "count", {}), frozenset({"count"}))

        outcomes = [*await asyncio.gather(call(), call()), await call()]
        assert [outcome.result for outcome in outcomes] == [{"number": 1}, {"number": 2}, {"number": 3}]
        return await answer(work)

    async with Workshop(memory, tools=[a_tool("count", count)]) as shop:
        shop.supervisor.scripts["hello"] = script
        ids = [body.tool_call_id for body in (await shop.told(await shop.accept("hello"))).of(ToolExecuting)]
    assert ids == ["1-data.call_0", "1-data.call_0~2", "1-data.call_0~3"]


async def test_a_call_that_has_ended_is_not_run_again(memory: MemoryStorage) -> None:
    ran: list[str] = []

    async def note(_: ToolContext) -> JsonObject:
        ran.append("look")
        return {"number": len(ran)}

    gate = Gate(is_open=False)

    async def script(work: Work) -> FinalResponse:
        outcome = await call_tool(work, "look")
        assert outcome.result == {"number": 1}
        await work.emitter.flush()
        await gate.passage()
        return await answer(work)

    async with Workshop(memory, tools=[a_tool("look", note)]) as first:
        first.supervisor.scripts["hello"] = script
        run = await first.accept("hello")
        await gate.reached()
        await first.crash()
    gate.open()
    async with Workshop(memory, tools=[a_tool("look", note)]) as second:
        second.supervisor.scripts["hello"] = script
        told = await second.told(run)
    assert isinstance(told.end, AgentCompleted)
    assert ran == ["look"]
    assert len(told.of(ToolCompleted)) == 1


# ---- Limits ----


async def test_so_many_calls_of_a_user_run_at_once_and_the_next_waits(memory: MemoryStorage) -> None:
    gate = Gate(is_open=False)

    async def wait(_: ToolContext) -> JsonObject:
        await gate.passage()
        return {}

    async def script(work: Work) -> FinalResponse:
        calls = [ToolCall(str(number), "wait", {}) for number in range(3)]
        names = frozenset({"wait"})
        await asyncio.gather(*(work.dispatcher.call("data", "1-data", call, names) for call in calls))
        return await answer(work)

    async with Workshop(memory, tools=[a_tool("wait", wait)], limits=ToolLimits(at_once=4), slots=3) as shop:
        shop.supervisor.scripts["hello"] = script
        runs = [await shop.accept("hello"), await shop.accept("hello")]
        await gate.reached(4)
        await settle()
        assert gate.arrivals == 4
        bobs = await shop.accept("hello", BOB)
        await gate.reached(7)
        gate.open()
        for run in (*runs, bobs):
            await shop.told(run)
        assert gate.arrivals == 9


async def test_so_many_calls_of_a_user_begin_within_a_minute_and_the_next_is_refused(memory: MemoryStorage) -> None:
    limits = ToolLimits(per_minute=3)
    calls = Calls(memory, MONTHLY, limits=limits)
    # What is refused for its arguments does not count.
    told = await calls.play(("monthly", {}), *[("monthly", {"month": 6})] * 4)
    statuses = [body.status for body in told.of(ToolCompleted)]
    assert statuses == [ToolStatus.ERROR, *[ToolStatus.SUCCESS] * 3, ToolStatus.DENIED]
    assert "within a minute" in calls.outcomes[-1].error
    assert await limits.permits(BOB.user_id)


async def test_a_place_is_given_back_whatever_happens() -> None:
    limits = ToolLimits(at_once=1)

    async def hold(gate: Gate) -> None:
        async with limits.slot(ANN.user_id):
            await gate.passage()

    first, second, third = (asyncio.create_task(hold(Gate(is_open=False))) for _ in range(3))
    assert await is_stuck(first)
    second.cancel()
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    async with asyncio.timeout(1), limits.slot(ANN.user_id):
        pass
