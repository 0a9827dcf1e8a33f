"""What becomes of a run when its steps fail, hang, run side by side, or are cut off."""

import asyncio
from datetime import datetime, timedelta

import pytest
from pydantic import BaseModel

from agent_service.engine.attempt import Job
from agent_service.engine.circuits import MAX_FAILURES
from agent_service.engine.clock import SystemClock
from agent_service.engine.commands import RunSettings
from agent_service.engine.errors import ErrorReason, ModelError, Remedy
from agent_service.engine.events import (
    AgentHandoff,
    AgentProgress,
    AgentThinking,
    ApprovalDecision,
    ApprovalResolved,
    Effect,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
    Usage,
)
from agent_service.engine.intents import Intent
from agent_service.engine.pipeline import RESERVED_PART
from agent_service.engine.ports import Step, StepResult, StepSink, ToolCall
from agent_service.engine.retry import RETRIES
from agent_service.engine.tool import Tool, ToolContext, ToolOutput
from storage.records import RunStatus
from tests.support.canned_tools import RESULT, AnyArguments, CannedTools
from tests.support.conversations import AGENTS, Bench, Told
from tests.support.gates import Gate
from tests.support.loops import SPECIALISTS, Part, ScriptedLoop, down, says_its_name, triaged

EVERYBODY = (*AGENTS, *SPECIALISTS)
WENT_ON = "Data: It ended with MODEL_UNAVAILABLE. The model 'spare' goes on."


def a_bench(loop: ScriptedLoop, **options: object) -> Bench:
    bench = Bench(agents=EVERYBODY, tools=CannedTools().make(), loop=loop)
    for name, value in options.items():
        setattr(bench, name, value)
    return bench


def told_of(told: Told, stage: ProgressStage) -> list[str]:
    return [progress.message for progress in told.bodies(AgentProgress) if progress.stage is stage]


def found_by(loop: ScriptedLoop, agent_name: str) -> dict[str, object]:
    """Return what the last step of an agent was given."""
    step = next(step for step in reversed(loop.steps) if step.agent.name == agent_name)
    return {finding.agent_name: finding.output for finding in step.findings}


def failing(times: int, then: Part = says_its_name, error: Exception | None = None) -> Part:
    """Return a part that fails so many times."""
    left = [times]

    async def part(step: Step, sink: StepSink) -> StepResult:
        if left[0]:
            left[0] -= 1
            raise error or LookupError("/srv/secret")
        return await then(step, sink)

    return part


async def test_a_whole_pipeline_in_order_with_all_that_was_found() -> None:
    loop = ScriptedLoop(triaged())
    async with a_bench(loop) as bench:
        told = await bench.ask("cut costs by 20 %")
    assert loop.played == ["triage", "data", "optimizations", "actions", "reporting"]
    assert [step.writes_answer for step in loop.steps] == [False, False, False, False, True]
    assert list(found_by(loop, "actions")) == ["triage", "data", "optimizations", "supervisor"]
    notes = found_by(loop, "reporting")["supervisor"]
    assert isinstance(notes, dict)
    assert (notes["level"], notes["failed"], notes["intent"]) == ("full", {}, "optimization")
    assert told_of(told, ProgressStage.PLANNED) == ["Data → Optimizations → Actions → Reporting"]
    assert [move.to_agent for move in told.bodies(AgentHandoff)] == loop.played
    assert (told.final.content, told.final.degraded) == ("reporting found it.", False)


async def test_what_the_data_lacks_is_named_where_only_guidance_can_be_given() -> None:
    async def look(_step: Step, sink: StepSink) -> StepResult:
        await sink.call_tool(ToolCall("c1", "describe_dataset", {}))
        return StepResult(triaged(sufficiency="insufficient"))

    loop = ScriptedLoop(triaged(), {"triage": look})
    async with a_bench(loop) as bench:
        told = await bench.ask("cut costs by 20 %")
    assert loop.played == ["triage", "reporting"]
    notes = found_by(loop, "reporting")["supervisor"]
    assert isinstance(notes, dict)
    assert (notes["level"], notes["missing"]) == ("guidance", ["model: It prices. Say which."])
    assert told.final.missing_data == ("model: It prices. Say which.",)
    assert told_of(told, ProgressStage.PLANNED) == ["Reporting. The data lacks: model."]


# Failures


async def test_a_step_that_fails_is_tried_again_and_nothing_is_degraded() -> None:
    loop = ScriptedLoop(triaged(Intent.PRICING), {"data": failing(RETRIES)})
    async with a_bench(loop) as bench:
        told = await bench.ask("prices")
    assert loop.played == ["triage", "data", "data", "data"]
    assert told_of(told, ProgressStage.STEP) == [
        "Data",
        *["Data: It failed unexpectedly. It is tried again."] * RETRIES,
    ]
    assert (told.final.content, told.final.degraded) == ("data found it.", False)
    assert "secret" not in str(told.events)


async def test_after_its_retries_another_model_goes_on_and_the_answer_is_degraded() -> None:
    loop = ScriptedLoop(triaged(Intent.PRICING), {"data@": down()}, fallback="spare")
    loop.parts["data@spare"] = says_its_name
    async with a_bench(loop) as bench:
        told = await bench.ask("prices")
    assert loop.played == ["triage", "data", "data", "data", "data@spare"]
    assert told_of(told, ProgressStage.DEGRADED) == [
        "Data: It ended with MODEL_UNAVAILABLE. The model 'spare' goes on."
    ]
    assert (told.final.content, told.final.degraded) == ("data found it.", True)


@pytest.mark.parametrize(
    ("remedy", "played"),
    [
        (Remedy.AGAIN, ["data", "data", "data", "data@spare"]),
        (Remedy.OTHER_MODEL, ["data", "data@spare"]),
        (Remedy.NONE, ["data", "reporting"]),
    ],
)
async def test_only_what_may_help_is_tried(remedy: Remedy, played: list[str]) -> None:
    loop = ScriptedLoop(triaged(Intent.PRICING), fallback="spare")
    loop.parts["data@"] = failing(9, error=ModelError("No.", remedy))
    loop.parts["data@spare"] = says_its_name
    async with a_bench(loop) as bench:
        told = await bench.ask("prices")
    assert loop.played == ["triage", *played]
    assert told.final.degraded


async def test_triage_that_fails_falls_back_and_says_so() -> None:
    async def rules(_step: Step, _sink: StepSink) -> StepResult:
        return StepResult(triaged(Intent.GENERAL))

    loop = ScriptedLoop(triaged(), {"triage@": down(), "triage@offline": rules}, fallback="offline")
    async with a_bench(loop) as bench:
        told = await bench.ask("hello")
    assert loop.played == ["triage", "triage", "triage", "triage@offline", "supervisor"]
    assert told_of(told, ProgressStage.DEGRADED)
    assert told.bodies(AgentProgress)[-2].stage is ProgressStage.PLANNED
    assert (told.final.content, told.final.degraded) == ("supervisor found it.", True)


async def test_where_nobody_understands_the_request_somebody_helps_on() -> None:
    loop = ScriptedLoop(triaged(), {"triage": down()})
    async with a_bench(loop) as bench:
        told = await bench.ask("cut costs")
    assert loop.played == ["triage", "triage", "triage", "reporting"]
    found = found_by(loop, "reporting")
    assert found["triage"] == {"failed": "It ended with MODEL_UNAVAILABLE."}
    notes = found["supervisor"]
    assert isinstance(notes, dict)
    assert (notes["level"], notes["failed"]) == ("guidance", {"triage": "It ended with MODEL_UNAVAILABLE."})
    assert (told.final.content, told.final.degraded) == ("reporting found it.", True)


async def test_a_step_that_cannot_be_done_is_left_out_and_the_next_ones_are_told() -> None:
    loop = ScriptedLoop(triaged(), {"optimizations": down()})
    async with a_bench(loop) as bench:
        told = await bench.ask("cut costs")
    assert loop.played == ["triage", "data", *["optimizations"] * 3, "actions", "reporting"]
    found = found_by(loop, "reporting")
    assert found["optimizations"] == {"failed": "It ended with MODEL_UNAVAILABLE."}
    notes = found["supervisor"]
    assert isinstance(notes, dict)
    assert notes["failed"] == {"optimizations": "It ended with MODEL_UNAVAILABLE."}
    assert notes["level"] == "partial"
    assert told_of(told, ProgressStage.DEGRADED) == [
        "Optimizations: It ended with MODEL_UNAVAILABLE. The rest goes on without it."
    ]
    assert bench.degraded == ["optimizations"]
    assert (told.final.content, told.final.degraded) == ("reporting found it.", True)


async def test_where_the_one_who_writes_fails_reporting_does_it_and_half_a_text_is_taken_back() -> None:
    async def breaks_off(_step: Step, sink: StepSink) -> StepResult:
        await sink.text("Half a")
        raise LookupError

    loop = ScriptedLoop(triaged(Intent.COST_ANALYSIS), {"data": breaks_off})
    async with a_bench(loop) as bench:
        told = await bench.ask("costs")
    assert loop.played == ["triage", "data", "data", "data", "reporting"]
    assert told.final.content == "reporting found it."
    assert [progress.discard_partial for progress in told.bodies(AgentProgress)].count(True) == 3
    last = told.bodies(AgentHandoff)[-1]
    assert (last.from_agent, last.to_agent, last.reason) == ("data", "reporting", "It failed unexpectedly.")
    assert found_by(loop, "reporting")["data"] == {"failed": "It failed unexpectedly."}


async def test_reporting_that_fails_is_done_by_the_spare_model_and_then_by_the_supervisor() -> None:
    loop = ScriptedLoop(triaged(), {"reporting@": down()}, fallback="offline")
    async with a_bench(loop) as bench:
        told = await bench.ask("cut costs")
    assert loop.played[-4:] == ["reporting", "reporting", "reporting", "reporting@offline"]
    assert told.final.content == "reporting found it."
    loop = ScriptedLoop(triaged(), {"reporting": down()})
    async with a_bench(loop) as bench:
        told = await bench.ask("cut costs")
    assert loop.played[-1] == "supervisor"
    assert told.final.content == "supervisor found it."


async def test_where_nobody_at_all_answers_the_run_ends_with_the_last_error() -> None:
    loop = ScriptedLoop(triaged(), {name: down() for name in ("data", "reporting", "supervisor")})
    async with a_bench(loop) as bench:
        told = await bench.ask("cut costs")
    assert (told.error.reason, told.error.message) == (
        ErrorReason.MODEL_UNAVAILABLE,
        "It ended with MODEL_UNAVAILABLE.",
    )


@pytest.mark.parametrize("reason", [ErrorReason.BUDGET_EXCEEDED, ErrorReason.INVALID_ARGUMENT])
async def test_what_concerns_the_run_ends_it_at_once(reason: ErrorReason) -> None:
    loop = ScriptedLoop(triaged(), {"data": down(reason)}, fallback="spare")
    async with a_bench(loop) as bench:
        told = await bench.ask("cut costs")
    assert loop.played == ["triage", "data"]
    assert told.error.reason is reason


# Tools around a failure


def an_effect(name: str, effect: Effect, ran: list[str], gate: Gate | None = None) -> Tool[BaseModel]:
    """Return a tool with an effect; it notes its calls, and waits for the gate."""

    async def run(context: ToolContext, _: BaseModel) -> ToolOutput:
        ran.append(context.tool_call_id)
        if gate is not None:
            await gate.passage()
        return ToolOutput(f"{name} is done.", RESULT)

    return Tool(name, f"Does {name}.", AnyArguments, effect, 10_000, run)


def calling(*calls: ToolCall, fails: int = 0) -> Part:
    """Return a part that calls these tools, fails so many times after that, and then says what came of them."""
    left = [fails]

    async def part(step: Step, sink: StepSink) -> StepResult:
        outcomes = [await sink.call_tool(call) for call in calls]
        if left[0]:
            left[0] -= 1
            raise LookupError
        words = " ".join(outcome.status for outcome in outcomes)
        if step.writes_answer:
            await sink.text(words)
        return StepResult(words)

    return part


@pytest.mark.parametrize("effect", list(Effect))
async def test_a_call_that_ended_is_not_made_again_by_a_retry_nor_by_another_model(effect: Effect) -> None:
    ran: list[str] = []
    tools = [an_effect("usage_summary", effect, ran)]
    tools += [tool for tool in CannedTools().make() if tool.name != "usage_summary"]
    loop = ScriptedLoop(triaged(Intent.PRICING), fallback="spare")
    loop.parts["data@"] = calling(ToolCall("a", "usage_summary", {"n": 1}), fails=9)
    # An unsafe one would be asked about, and the step begin again once more.
    other = [] if effect is Effect.UNSAFE else [ToolCall("c", "usage_summary", {"n": 2})]
    loop.parts["data@spare"] = calling(ToolCall("b", "usage_summary", {"n": 1}), *other)
    async with Bench(agents=EVERYBODY, tools=tools, loop=loop) as bench:
        told = await bench.ask("prices")
    asked = ["data"] if effect is Effect.UNSAFE else []
    assert loop.played == ["triage", *asked, "data", "data", "data", "data@spare"]
    assert ran == ["1-data.a", *(f"1-data.{call.call_id}" for call in other)]
    assert told.final.content == " ".join(["success"] * (1 + len(other)))
    assert [call.tool_call_id for call in told.bodies(ToolExecuting)] == ran


async def test_a_call_that_failed_is_made_again_by_another_model() -> None:
    tools = CannedTools(broken="usage_summary")
    loop = ScriptedLoop(triaged(Intent.PRICING), fallback="spare")
    loop.parts["data@"] = calling(ToolCall("a", "usage_summary", {}), fails=9)

    async def mended(step: Step, sink: StepSink) -> StepResult:
        tools.broken = ""
        return await calling(ToolCall("a", "usage_summary", {}))(step, sink)

    loop.parts["data@spare"] = mended
    async with Bench(agents=EVERYBODY, tools=tools.make(), loop=loop) as bench:
        told = await bench.ask("prices")
    assert tools.ran == ["1-data.a", "1-data.a~2"]
    assert told.final.content == "success"


@pytest.mark.parametrize(
    ("effect", "ran", "ended", "says"),
    [
        (Effect.UNSAFE, ["1-data.a"], [ToolStatus.OUTCOME_UNKNOWN], "outcome_unknown"),
        (Effect.READ_ONLY, ["1-data.a", "1-data.a"], [ToolStatus.SUCCESS], "success"),
    ],
)
async def test_a_call_that_its_step_was_cut_off_in_is_repeated_only_if_that_is_safe(
    effect: Effect, ran: list[str], ended: list[ToolStatus], says: str
) -> None:
    gate, calls = Gate(is_open=False), list[str]()
    tools = [an_effect("usage_summary", effect, calls, gate)]
    tools += [tool for tool in CannedTools().make() if tool.name != "usage_summary"]
    loop = ScriptedLoop(triaged(Intent.PRICING), fallback="spare")
    loop.parts["data"] = calling(ToolCall("a", "usage_summary", {}))

    async def after(step: Step, sink: StepSink) -> StepResult:
        gate.open()
        return await calling(ToolCall("b", "usage_summary", {}))(step, sink)

    loop.parts["data@spare"] = after
    async with Bench(agents=EVERYBODY, tools=tools, loop=loop, step_timeout_ms=500) as bench:
        told = await bench.ask("prices")
    assert calls == ran
    assert [call.status for call in told.bodies(ToolCompleted)] == ended
    assert told.final.content == says


async def test_a_step_that_is_given_up_leaves_no_call_open() -> None:
    tools = CannedTools(stuck="usage_summary")
    loop = ScriptedLoop(triaged(), {"data": calling(ToolCall("a", "usage_summary", {}))})
    async with Bench(agents=EVERYBODY, tools=tools.make(), loop=loop, step_timeout_ms=500) as bench:
        told = await bench.ask("cut costs")
    (call,) = told.bodies(ToolCompleted)
    assert (call.status, call.error) == (ToolStatus.CANCELLED, "The step ended before this did.")
    ended = next(event.seq for event in told.events if isinstance(event.body, ToolCompleted))
    degraded = next(e.seq for e in told.events if isinstance(e.body, AgentProgress) and "0.5 s" in e.body.message)
    assert ended < degraded
    assert told.final.content == "reporting found it."


async def test_a_step_that_is_given_up_leaves_no_question_open() -> None:
    stuck = CannedTools(stuck="usage_summary").make()
    tools = [an_effect("cost_breakdown", Effect.UNSAFE, []), *(one for one in stuck if one.name != "cost_breakdown")]
    calls = ToolCall("a", "cost_breakdown", {}), ToolCall("b", "usage_summary", {})

    async def asks_beside_what_hangs(step: Step, sink: StepSink) -> StepResult:
        await asyncio.gather(*(sink.call_tool(call) for call in calls))
        return await says_its_name(step, sink)

    loop = ScriptedLoop(triaged(), {"data": asks_beside_what_hangs})
    async with Bench(agents=EVERYBODY, tools=tools, loop=loop, step_timeout_ms=500) as bench:
        told = await bench.ask("cut costs")
    (answer,) = told.bodies(ApprovalResolved)
    assert answer.decision is ApprovalDecision.CANCELLED
    closed = next(event.seq for event in told.events if isinstance(event.body, ApprovalResolved))
    degraded = next(e.seq for e in told.events if isinstance(e.body, AgentProgress) and "0.5 s" in e.body.message)
    assert closed < degraded
    assert told.final.content == "reporting found it."


# Side by side


async def test_steps_that_do_not_depend_on_each_other_run_at_the_same_time() -> None:
    both = asyncio.Barrier(3)

    async def meets(step: Step, sink: StepSink) -> StepResult:
        await asyncio.wait_for(both.wait(), 10)
        return await says_its_name(step, sink)

    names = ("data", "corpus_admin", "synthetic_data")
    loop = ScriptedLoop(triaged(Intent.COST_ANALYSIS, *names), dict.fromkeys(names, meets))
    async with a_bench(loop) as bench:
        told = await bench.ask("costs, and what our docs say, and make some rows")
    assert sorted(loop.played[1:4]) == sorted(names)
    assert loop.played[4:] == ["reporting"]
    assert list(found_by(loop, "reporting")) == ["triage", *names, "supervisor"]
    assert told_of(told, ProgressStage.PLANNED) == ["Data and Corpus admin and Synthetic data → Reporting"]
    steps = told_of(told, ProgressStage.STEP)
    assert steps[:3] == ["Data", "Corpus admin", "Synthetic data"]
    assert sorted(steps[3:6]) == ["Corpus admin: done.", "Data: done.", "Synthetic data: done."]
    assert steps[6:] == ["Reporting"]


async def test_one_that_fails_beside_others_does_not_disturb_them() -> None:
    loop = ScriptedLoop(triaged(Intent.COST_ANALYSIS, "corpus_admin"), {"data": down()})
    async with a_bench(loop) as bench:
        told = await bench.ask("costs, and what our docs say")
    found = found_by(loop, "reporting")
    assert found["corpus_admin"] == {"text": "corpus_admin found it."}
    assert found["data"] == {"failed": "It ended with MODEL_UNAVAILABLE."}
    assert told.final.degraded


async def test_what_concerns_the_run_stops_the_others_too() -> None:
    stopped: list[str] = []

    async def hangs(step: Step, _sink: StepSink) -> StepResult:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(step.agent.name)
        raise AssertionError

    parts = {"data": hangs, "corpus_admin": down(ErrorReason.BUDGET_EXCEEDED)}
    async with a_bench(ScriptedLoop(triaged(Intent.COST_ANALYSIS, "corpus_admin"), parts)) as bench:
        told = await bench.ask("costs, and what our docs say")
    assert told.error.reason is ErrorReason.BUDGET_EXCEEDED
    assert stopped == ["data"]


async def test_where_one_waits_for_a_person_the_others_come_to_their_end_first() -> None:
    ran: list[str] = []
    tools = [an_effect("cost_breakdown", Effect.UNSAFE, ran)]
    tools += [tool for tool in CannedTools().make() if tool.name != "cost_breakdown"]
    asked = asyncio.Event()

    async def asks(step: Step, sink: StepSink) -> StepResult:
        asked.set()
        return await calling(ToolCall("a", "cost_breakdown", {}))(step, sink)

    async def goes_on(step: Step, sink: StepSink) -> StepResult:
        await asked.wait()
        await calling(ToolCall("a", "usage_summary", {}), ToolCall("b", "usage_summary", {}))(step, sink)
        return await says_its_name(step, sink)

    loop = ScriptedLoop(triaged(Intent.COST_ANALYSIS, "corpus_admin"), {"data": asks, "corpus_admin": goes_on})
    async with Bench(agents=EVERYBODY, tools=tools, loop=loop) as bench:
        told = await bench.ask("costs, and what our docs say")
    assert [name for name in loop.played if name != "reporting"] == ["triage", "data", "corpus_admin", "data"]
    assert ran == ["1-data.a"]
    decided = next(event.seq for event in told.events if isinstance(event.body, ApprovalResolved))
    before = [event.body for event in told.events[:decided]]
    assert "Corpus admin: done." in [body.message for body in before if isinstance(body, AgentProgress)]
    assert told.final.content == "reporting found it."


async def test_a_crash_in_the_middle_of_a_stage_repeats_only_what_was_not_finished() -> None:
    tools = CannedTools(stuck="cost_breakdown")
    called: list[str] = []

    def saving(call: ToolCall) -> Part:
        async def part(step: Step, sink: StepSink) -> StepResult:
            called.append(f"{step.agent.name} {step.resume!r}")
            sink.save(step.agent.name.encode())
            await sink.call_tool(call)
            return StepResult(f"{step.agent.name} found it.")

        return part

    loop = ScriptedLoop(
        triaged(Intent.COST_ANALYSIS, "corpus_admin"),
        {
            "data": saving(ToolCall("a", "usage_summary", {})),
            "corpus_admin": saving(ToolCall("a", "usage_summary", {})),
            "synthetic_data": saving(ToolCall("a", "cost_breakdown", {})),
        },
    )
    loop.triage = triaged(Intent.COST_ANALYSIS, "corpus_admin", "synthetic_data")
    specialists = [agent for agent in SPECIALISTS if agent.name != "synthetic_data"]
    stuck = type(SPECIALISTS[0])("synthetic_data", "Synthetic data", "Makes.", "Make.", ("cost_breakdown",))
    async with Bench(agents=(*AGENTS, *specialists, stuck), tools=tools.make(), loop=loop) as bench:
        run = await bench.accept("costs, and what our docs say")
        job = Job(await bench.claim(run))
        job.task = asyncio.create_task(bench.attempts().work(job))
        seen: list[str] = []
        async with await bench.watch(run) as watch:
            while len(called) < 3 or sum(message.endswith("done.") for message in seen) < 2:
                bodies = [event.body for event in bench.decode(await anext(watch))]
                seen += [body.message for body in bodies if isinstance(body, AgentProgress)]
        job.task.cancel()
        await asyncio.wait({job.task})
        tools.stuck = ""
        called.clear()
        tools.ran.clear()
        await bench.attempts().work(Job(await bench.claim(run)))
        told = await bench.told(run)
    assert called == ["synthetic_data b'synthetic_data'"]
    assert set(tools.ran) == {"3-synthetic_data.a"}
    assert [call.tool_call_id for call in told.bodies(ToolExecuting)].count("3-synthetic_data.a") == 1
    assert list(found_by(loop, "reporting")) == ["triage", "data", "corpus_admin", "synthetic_data", "supervisor"]
    assert told.final.content == "reporting found it."


async def test_a_run_whose_worker_is_lost_goes_on_with_the_model_that_it_had_come_to() -> None:
    hangs = asyncio.Event()

    async def waits(step: Step, sink: StepSink) -> StepResult:
        await hangs.wait()
        return await says_its_name(step, sink)

    loop = ScriptedLoop(triaged(Intent.PRICING), {"data@": down(), "data@spare": waits}, fallback="spare")
    async with a_bench(loop) as bench:
        run = await bench.accept("prices")
        job = Job(await bench.claim(run))
        job.task = asyncio.create_task(bench.attempts().work(job))
        async with await bench.watch(run) as watch:
            stages: list[ProgressStage] = []
            while ProgressStage.DEGRADED not in stages:
                stages += [e.body.stage for e in bench.decode(await anext(watch)) if isinstance(e.body, AgentProgress)]
        job.task.cancel()
        await asyncio.wait({job.task})
        hangs.set()
        loop.steps.clear()
        await bench.attempts().work(Job(await bench.claim(run)))
        told = await bench.told(run)
    assert loop.played == ["data@spare"]
    assert told.final.degraded
    assert told_of(told, ProgressStage.DEGRADED) == [
        "Data: It ended with MODEL_UNAVAILABLE. The model 'spare' goes on."
    ]


async def test_what_a_lost_worker_did_with_one_model_is_not_done_again_with_the_next() -> None:
    ran: list[str] = []
    tools = [an_effect("usage_summary", Effect.IDEMPOTENT, ran)]
    tools += [tool for tool in CannedTools().make() if tool.name != "usage_summary"]
    lost = asyncio.Event()

    async def waits(step: Step, sink: StepSink) -> StepResult:
        await lost.wait()
        return await calling(ToolCall("b", "usage_summary", {}))(step, sink)

    loop = ScriptedLoop(triaged(Intent.PRICING), {"data@spare": waits}, fallback="spare")
    loop.parts["data@"] = calling(ToolCall("a", "usage_summary", {}), fails=9)
    async with Bench(agents=EVERYBODY, tools=tools, loop=loop) as bench:
        whole = 0
        async with await bench.watch(run := await bench.accept("prices")) as watch:
            job = Job(await bench.claim(run))
            job.task = asyncio.create_task(bench.attempts().work(job))
            while not whole:
                bodies = [event.body for event in bench.decode(await anext(watch))]
                whole += sum(isinstance(b, AgentProgress) and b.stage is ProgressStage.DEGRADED for b in bodies)
        job.task.cancel()
        await asyncio.wait({job.task})
        lost.set()
        await bench.attempts().work(Job(await bench.claim(run)))
        told = await bench.told(run)
    assert loop.played[-1] == "data@spare"
    assert ran == ["1-data.a"]
    assert told.final.content == "success"


async def test_a_writer_that_failed_before_a_crash_is_not_asked_again_after_it() -> None:
    hangs = asyncio.Event()

    async def waits(step: Step, sink: StepSink) -> StepResult:
        await hangs.wait()
        return await says_its_name(step, sink)

    loop = ScriptedLoop(triaged(Intent.PRICING), {"data": down(), "reporting": waits})
    async with a_bench(loop) as bench:
        run = await bench.accept("prices")
        job = Job(await bench.claim(run))
        job.task = asyncio.create_task(bench.attempts().work(job))
        async with await bench.watch(run) as watch:
            handed: list[str] = []
            while "reporting" not in handed:
                handed += [
                    e.body.to_agent for e in bench.decode(await anext(watch)) if isinstance(e.body, AgentHandoff)
                ]
        job.task.cancel()
        await asyncio.wait({job.task})
        hangs.set()
        loop.steps.clear()
        await bench.attempts().work(Job(await bench.claim(run)))
        told = await bench.told(run)
        assert (await bench.storage.runs.get("ann", run.run_id)).status is RunStatus.COMPLETED
    assert loop.played == ["reporting"]
    assert told.final.content == "reporting found it."


def saving(*calls: ToolCall, fails: bool = False) -> Part:
    """Return a part that saves its state before each call, as a loop does, and goes on from it."""

    async def part(step: Step, sink: StepSink) -> StepResult:
        done = int(step.resume or b"0")
        for number, call in enumerate(calls[done:], start=done):
            sink.save(str(number).encode())
            await sink.call_tool(call)
        if fails:
            raise ModelError("Gone.", Remedy.OTHER_MODEL)
        return await says_its_name(step, sink)

    return part


async def test_a_run_of_several_stages_that_is_cut_anywhere_makes_each_call_once() -> None:
    first, second = ToolCall("a", "usage_summary", {"n": 1}), ToolCall("b", "usage_summary", {"n": 2})
    loop = ScriptedLoop(triaged(Intent.OPTIMIZATION, "corpus_admin"), fallback="spare")
    loop.parts["data"] = saving(first, second)
    loop.parts["corpus_admin@"] = saving(first, fails=True)
    loop.parts["corpus_admin@spare"] = saving(first, second)
    loop.parts["reporting"] = saving(first)
    async with a_bench(loop) as bench:
        whole = await bench.ask("cut costs, and what our docs say")
        calls = sorted(call.tool_call_id for call in whole.bodies(ToolExecuting))
        cuts = set()
        for seq in range(1, len(whole.events)):
            cut = await bench.crash_after("cut costs, and what our docs say", seq)
            if (await bench.storage.runs.get("ann", cut.run.run_id)).status is not RunStatus.RUNNING:
                continue
            cuts.add(cut.events[-1].seq)
            done = [p.message for p in cut.bodies(AgentProgress) if p.message.endswith("done.")]
            loop.steps.clear()
            await bench.attempts().work(Job(await bench.claim(cut.run)))
            told = await bench.told(cut.run)
            assert told.final.content == whole.final.content, seq
            assert told.final.degraded, seq
            assert sorted(call.tool_call_id for call in told.bodies(ToolExecuting)) == calls, seq
            assert sorted(call.tool_call_id for call in told.bodies(ToolCompleted)) == calls, seq
            assert not {"data", "corpus_admin"}.intersection(
                step.agent.name for step in loop.steps if f"{step.agent.title}: done." in done
            ), seq
    assert len(cuts) > 3, cuts  # what is emitted at once is committed at once


# Time


class Hurried(SystemClock):
    """Says that much more time has passed since a moment than it has."""

    def __init__(self) -> None:
        self.skipped = timedelta()

    def now(self) -> datetime:
        return super().now() + self.skipped


async def test_the_last_fifth_of_the_time_belongs_to_those_who_write() -> None:
    clock = Hurried()

    async def takes_long(step: Step, sink: StepSink) -> StepResult:
        clock.skipped += timedelta(seconds=100 * (1 - 1 / RESERVED_PART))
        return await says_its_name(step, sink)

    loop = ScriptedLoop(triaged(), {"data": takes_long}, fallback="spare")
    async with a_bench(loop, clock=clock, run_timeout_ms=100_000) as bench:
        told = await bench.ask("cut costs")
    assert loop.played == ["triage", "data", "reporting"]
    assert told_of(told, ProgressStage.DEGRADED) == [
        "Optimizations: There was no time left for it. The rest goes on without it.",
        "Actions: There was no time left for it. The rest goes on without it.",
    ]
    assert (told.final.content, told.final.degraded) == ("reporting found it.", True)


async def test_a_step_is_cut_off_where_the_time_for_the_answer_begins() -> None:
    async def hangs(_step: Step, _sink: StepSink) -> StepResult:
        await asyncio.Event().wait()
        raise AssertionError

    loop = ScriptedLoop(triaged(Intent.COST_ANALYSIS), {"data": hangs})
    async with a_bench(loop) as bench:
        told = await bench.ask("costs", settings=RunSettings(timeout_ms=2_000))
    assert loop.played == ["triage", "data", "reporting"]
    assert told.final.degraded
    assert told.completed.execution_time_ms < 2_000


# Circuits


async def test_a_model_that_fails_again_and_again_is_left_alone_for_a_while() -> None:
    clock = Hurried()
    loop = ScriptedLoop(triaged(Intent.PRICING), fallback="spare")
    loop.parts["data@"] = failing(99, error=ModelError("Gone.", Remedy.OTHER_MODEL))
    loop.parts["data@spare"] = says_its_name
    async with a_bench(loop, clock=clock) as bench:
        for _ in range(MAX_FAILURES):
            await bench.ask("prices")
        loop.steps.clear()
        told = await bench.ask("prices")
    assert loop.played == ["triage", "data@spare"]
    (degraded,) = told_of(told, ProgressStage.DEGRADED)
    assert degraded.startswith("Data: Its language model failed several times within a minute and is left alone")
    assert degraded.endswith("The model 'spare' goes on.")


async def test_the_last_model_is_always_asked() -> None:
    loop = ScriptedLoop(triaged(Intent.PRICING), {"data": failing(99, error=ModelError("Gone.", Remedy.OTHER_MODEL))})
    async with a_bench(loop) as bench:
        for _ in range(MAX_FAILURES + 1):
            loop.steps.clear()
            await bench.ask("prices")
    assert loop.played == ["triage", "data", "reporting"]


# The larger model


def unsure(confidence: float = 0.5) -> Part:
    async def part(_step: Step, _sink: StepSink) -> StepResult:
        return StepResult(triaged(Intent.COST_ANALYSIS, confidence=confidence, question="Costs, or speed?"))

    return part


async def test_below_the_threshold_a_larger_model_is_asked_once() -> None:
    loop = ScriptedLoop(triaged(Intent.COST_ANALYSIS), {"triage@": unsure()})
    async with a_bench(loop, larger_model="large") as bench:
        told = await bench.ask("costs?")
    assert loop.played == ["triage", "triage@large", "data"]
    thoughts = [thought.thought for thought in told.bodies(AgentThinking)]
    assert "I am 50% sure; 85% are needed. A larger model has a look." in thoughts
    (classified,) = [p for p in told.bodies(AgentProgress) if p.stage is ProgressStage.CLASSIFIED]
    assert classified.confidence == 0.95


async def test_where_the_larger_model_is_unsure_too_one_question_is_asked() -> None:
    loop = ScriptedLoop(triaged(), {"triage": unsure()})
    async with a_bench(loop, larger_model="large") as bench:
        told = await bench.ask("costs?")
    assert loop.played == ["triage", "triage@large"]
    assert told.final.content == "Costs, or speed?"


async def test_a_larger_model_that_fails_changes_nothing_but_that_it_is_told() -> None:
    loop = ScriptedLoop(triaged(), {"triage@": unsure(), "triage@large": down()})
    async with a_bench(loop, larger_model="large") as bench:
        told = await bench.ask("costs?")
    assert loop.played == ["triage", *["triage@large"] * 3]
    assert told.final.content == "Costs, or speed?"
    assert told.final.degraded


@pytest.mark.parametrize(
    ("model", "larger", "confidence"), [("offline", "large", 0.5), ("", "", 0.5), ("", "large", 0.85)]
)
async def test_no_larger_model_where_one_was_chosen_or_is_not_needed(
    model: str, larger: str, confidence: float
) -> None:
    loop = ScriptedLoop(triaged(), {"triage": unsure(confidence)})
    async with a_bench(loop, larger_model=larger) as bench:
        await bench.ask("costs?", settings=RunSettings(model=model))
    assert [step.agent.name for step in loop.steps].count("triage") == 1


async def test_what_triage_looked_up_is_not_looked_up_again_by_the_larger_model() -> None:
    tools = CannedTools()

    def looking(confidence: float) -> Part:
        async def part(_step: Step, sink: StepSink) -> StepResult:
            sink.used(Usage(model_requests=1))
            await sink.call_tool(ToolCall(f"id{confidence}", "describe_dataset", {}))
            return StepResult(triaged(Intent.COST_ANALYSIS, confidence=confidence))

        return part

    loop = ScriptedLoop(triaged(), {"triage@": looking(0.5), "triage@large": looking(0.9)})
    async with Bench(agents=EVERYBODY, tools=tools.make(), loop=loop, larger_model="large") as bench:
        await bench.ask("costs?")
    assert tools.ran == ["0-triage.id0.5"]
