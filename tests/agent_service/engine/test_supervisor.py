"""The supervisor's flow over the real emitter, journal, dispatcher and offline model, with canned tools."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, FunctionModel

from agent_service.agents.triage import TRIAGE
from agent_service.engine.agent import Agent
from agent_service.engine.attempt import Job, Stop
from agent_service.engine.commands import RunSettings
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import (
    AgentHandoff,
    AgentProgress,
    AgentStarted,
    AgentThinking,
    Body,
    Event,
    PartialResult,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
    Usage,
)
from agent_service.engine.intents import Intent, Triage
from agent_service.engine.ports import Step, StepResult, StepSink, ToolCall
from agent_service.llm.loop import ModelLoop
from agent_service.llm.offline.model import OfflineModel
from storage.records import RunStatus
from tests.support.canned_tools import CannedTools
from tests.support.conversations import AGENTS, Bench
from tests.support.loops import OneModelOnly


def kinds(events: Sequence[Event], *, without: tuple[type[Body], ...] = ()) -> list[str]:
    """Return who said what, repeats in a row once."""
    told = [f"{event.agent_name} {_kind(event.body)}" for event in events if not isinstance(event.body, without)]
    return [one for number, one in enumerate(told) if number == 0 or one != told[number - 1]]


def _kind(body: Body) -> str:
    return f"{body.stage}" if isinstance(body, AgentProgress) else type(body).__name__


async def test_the_whole_flow_in_order() -> None:
    async with Bench(tools=CannedTools().make()) as bench:
        told = await bench.ask("Analyze my AI costs")
    assert kinds(told.events) == [
        "supervisor AgentStarted",
        "supervisor AgentThinking",
        "supervisor AgentHandoff",
        "triage AgentThinking",
        "triage ToolExecuting",
        "triage ToolCompleted",
        "triage AgentThinking",
        "supervisor classified",
        "supervisor planned",
        "supervisor AgentHandoff",
        "supervisor step",
        "data AgentThinking",
        "data ToolExecuting",
        "data ToolCompleted",
        "data AgentThinking",
        "data PartialResult",
        "supervisor FinalResponse",
        "supervisor AgentCompleted",
    ]
    classified, planned, step = told.bodies(AgentProgress)
    assert (classified.intent, classified.confidence > 0.85) == ("cost_analysis", True)
    assert [planned_step.agent_name for planned_step in planned.planned_steps] == ["data"]
    assert (step.step, step.total_steps) == (1, 1)
    assert [(move.from_agent, move.to_agent) for move in told.bodies(AgentHandoff)] == [
        ("supervisor", "triage"),
        ("triage", "data"),
    ]
    assert [call.tool_call_id for call in told.bodies(ToolExecuting)] == [
        "0-triage.c1",
        "0-triage.c2",
        "1-data.c1",
        "1-data.c2",
    ]
    assert told.final.content == "".join(piece.text for piece in told.bodies(PartialResult))
    assert told.final.missing_data == ("model: It prices. Say which.",)
    assert told.final.suggestions
    assert told.completed.usage.model_requests == 4
    assert told.completed.usage.tool_calls == 4


async def test_a_thought_is_there_before_the_first_tool() -> None:
    async with Bench(tools=CannedTools().make()) as bench:
        told = await bench.ask("Analyze my AI costs")
    first_tool = next(event.seq for event in told.events if isinstance(event.body, ToolExecuting))
    before = [event for event in told.events[: first_tool - 1] if isinstance(event.body, AgentThinking)]
    assert {event.agent_name for event in before} == {"supervisor", "triage"}


async def test_events_arrive_while_the_tool_still_works() -> None:
    tools = CannedTools(stuck="list_datasets")
    async with Bench(tools=tools.make()) as bench:
        run = await bench.accept("Analyze my AI costs")
        claimed = await bench.claim(run)
        seen: list[Event] = []
        async with await bench.watch(run) as watch:
            job = Job(claimed)
            job.task = asyncio.create_task(bench.attempts().work(job))
            while not any(isinstance(event.body, ToolCompleted) for event in seen):
                seen += bench.decode(await anext(watch))
        assert kinds(seen)[:4] == [
            "supervisor AgentStarted",
            "supervisor AgentThinking",
            "supervisor AgentHandoff",
            "triage AgentThinking",
        ]
        job.interrupt(Stop.CANCEL, "enough")
        await job.task
        told = await bench.told(run)
    assert tools.stopped == ["0-triage.c1"]
    assert told.bodies(ToolCompleted)[-1].status is ToolStatus.CANCELLED
    assert told.completed.message == "enough"


async def test_below_the_threshold_one_question_is_the_answer() -> None:
    async with Bench(tools=CannedTools().make()) as bench:
        told = await bench.ask("qwertz uiopasd")
    assert not told.bodies(ToolExecuting)
    assert told.final.content.count("?") == 1
    assert "could not make sense" in told.final.content
    assert [event.agent_name for event in told.events if isinstance(event.body, PartialResult)] == ["supervisor"]


@pytest.mark.parametrize(
    ("message", "intent", "says"),
    [
        ("generate 10,000 requests that look like Black Friday", Intent.SYNTHETIC, "not available"),
        ("create a knowledge base for our runbooks", Intent.CORPUS, "not available"),
        ("hello", Intent.GENERAL, "Analyze my AI costs"),
        ("write a poem about the sea", Intent.GENERAL, "outside of what I can do"),
    ],
)
async def test_what_nobody_here_can_do_is_said_with_what_can_be_done(message: str, intent: Intent, says: str) -> None:
    async with Bench(tools=CannedTools().make()) as bench:
        told = await bench.ask(message)
    assert told.bodies(AgentProgress)[0].intent == intent.value
    assert not told.bodies(ToolExecuting)
    assert says in told.final.content
    assert told.final.missing_data == ()
    assert [move.to_agent for move in told.bodies(AgentHandoff)] == ["triage", "supervisor"]


async def test_where_measured_facts_help_they_are_given_with_what_is_not_available() -> None:
    async with Bench(tools=CannedTools().make()) as bench:
        told = await bench.ask("cut our spend by 30 %, keep quality")
    assert "Not available here yet" in told.final.content
    assert "computing options" in told.final.content
    assert {call.tool_name for call in told.bodies(ToolExecuting)} >= {"usage_summary", "cost_breakdown"}


async def test_a_specialist_that_is_installed_is_asked_and_not_excused() -> None:
    specialist = Agent("synthetic_data", "Synthetic data", "Generates.", "Generate.")
    async with Bench(agents=(*AGENTS, specialist), tools=CannedTools().make()) as bench:
        told = await bench.ask("generate 10,000 requests that look like Black Friday")
    assert [move.to_agent for move in told.bodies(AgentHandoff)] == ["triage", "synthetic_data"]


async def test_a_run_that_names_its_agent_skips_triage() -> None:
    async with Bench(tools=CannedTools().make()) as bench:
        told = await bench.ask("Analyze my AI costs", agent="data")
    assert [move.to_agent for move in told.bodies(AgentHandoff)] == ["data"]
    assert ProgressStage.CLASSIFIED not in {progress.stage for progress in told.bodies(AgentProgress)}
    assert "1,200 context (input) tokens" in told.final.content


async def test_a_named_agent_with_a_typed_output_is_put_into_words() -> None:
    async with Bench(tools=CannedTools().make()) as bench:
        told = await bench.ask("Analyze my AI costs", agent="triage")
    assert [move.to_agent for move in told.bodies(AgentHandoff)] == ["triage", "supervisor"]
    assert told.final.content


async def test_tools_that_fail_are_told_in_the_answer() -> None:
    async with Bench(tools=CannedTools(broken="usage_summary").make()) as bench:
        told = await bench.ask("Analyze my AI costs")
    assert "The file is broken." in told.final.content


async def test_a_step_that_takes_too_long_is_told_in_the_answer_with_advice() -> None:
    tools = CannedTools(stuck="usage_summary")
    async with Bench(tools=tools.make(), step_timeout_ms=1_500) as bench:
        told = await bench.ask("Analyze my AI costs")
    assert "Data: It did not finish within 1.5 seconds." in told.final.content
    assert "ask for less at once" in told.final.content
    assert told.final.degraded
    assert [move.to_agent for move in told.bodies(AgentHandoff)] == ["triage", "data", "supervisor"]
    assert tools.stopped == ["1-data.c1"]
    assert all(call.status in {ToolStatus.SUCCESS, ToolStatus.CANCELLED} for call in told.bodies(ToolCompleted))


class CostlyLoop(OneModelOnly):
    """Implements `AgentLoop`: each step asks twice and pays a cent each time; triage is sure of itself."""

    async def run(self, step: Step, sink: StepSink) -> StepResult:
        for _ in range(2):
            await sink.before_model_request()
            sink.used(Usage(model_requests=1, cost_usd=0.01))
        if step.agent is TRIAGE:
            return StepResult(Triage(category=Intent.COST_ANALYSIS, confidence=0.9, summary="Costs."))
        await sink.text("Paid.")
        return StepResult("Paid.")


@pytest.mark.parametrize(("budget_usd", "requests"), [(0.01, 1), (0.015, 2), (0.03, 3)])
async def test_the_budget_stops_a_run_before_the_next_request(budget_usd: float, requests: int) -> None:
    async with Bench(tools=CannedTools().make(), loop=CostlyLoop()) as bench:
        told = await bench.ask("costs", settings=RunSettings(budget_usd=budget_usd))
    assert told.error.reason is ErrorReason.BUDGET_EXCEEDED
    assert told.error.usage.model_requests == requests


async def test_within_the_budget_it_answers() -> None:
    async with Bench(tools=CannedTools().make(), loop=CostlyLoop()) as bench:
        told = await bench.ask("costs", settings=RunSettings(budget_usd=0.04))
    assert told.final.content == "Paid."
    assert told.completed.usage.cost_usd == pytest.approx(0.04)


SUFFICIENT = Triage(category=Intent.OPTIMIZATION, confidence=0.9, summary="Options.", sufficiency="sufficient")


class TwoStepLoop(OneModelOnly):
    """Implements `AgentLoop`: notes what each step was given; the last step's first words are taken back."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    async def run(self, step: Step, sink: StepSink) -> StepResult:
        self.steps.append(step)
        if step.agent is TRIAGE:
            return StepResult(SUFFICIENT)
        if not step.writes_answer:
            return StepResult(f"{step.agent.name} found it.")
        await sink.text("Too early.")
        await sink.discard_text()
        await sink.call_tool(ToolCall("c1", "usage_summary", {}))
        await sink.text("Right.")
        return StepResult("Right.")


async def test_findings_are_handed_on_and_only_the_last_step_writes() -> None:
    actions = Agent("actions", "Actions", "Plans.", "Plan.", ("usage_summary",))
    loop = TwoStepLoop()
    async with Bench(agents=(*AGENTS, actions), tools=CannedTools().make(), loop=loop) as bench:
        told = await bench.ask("cut costs")
    assert [step.agent.name for step in loop.steps] == ["triage", "data", "actions"]
    assert [step.writes_answer for step in loop.steps] == [False, False, True]
    last = loop.steps[-1].findings
    assert [finding.agent_name for finding in last] == ["triage", "data", "supervisor"]
    assert last[1].output == {"text": "data found it."}
    assert last[2].output["not_available"] == [
        {"agent": "optimizations", "does": "computing options with their savings, risk and effort"},
        {"agent": "reporting", "does": "reports with charts, as HTML or PDF"},
    ]
    assert told.final.content == "Right."
    assert any(progress.discard_partial for progress in told.bodies(AgentProgress))
    steps = [progress for progress in told.bodies(AgentProgress) if progress.stage is ProgressStage.STEP]
    assert (steps[0].step, steps[0].total_steps) == (1, 2)


async def test_a_model_without_words_is_an_error_and_no_empty_answer() -> None:
    class Silent(CostlyLoop):
        async def run(self, step: Step, sink: StepSink) -> StepResult:
            return await super().run(step, sink) if step.agent is TRIAGE else StepResult("")

    async with Bench(tools=CannedTools().make(), loop=Silent()) as bench:
        told = await bench.ask("costs")
    assert told.error.reason is ErrorReason.MODEL_UNAVAILABLE


async def test_errors_of_the_loop_reach_the_user() -> None:
    class Down(OneModelOnly):
        async def run(self, step: Step, sink: StepSink) -> StepResult:
            raise ApexError(ErrorReason.MODEL_UNAVAILABLE, "Down.")

    async with Bench(tools=CannedTools().make(), loop=Down()) as bench:
        told = await bench.ask("costs")
    assert (told.error.reason, told.error.message) == (ErrorReason.MODEL_UNAVAILABLE, "Down.")


class ProviderDown:
    """Implements `ModelSource`: the default model's provider is down, the offline model stands in."""

    names = ("broken",)

    def fallbacks(self, name: str = "") -> tuple[str, ...]:
        return () if name == "offline" else ("offline",)

    def get(self, name: str = "") -> Model:
        async def stream(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str]:
            if messages:
                raise ModelHTTPError(503, "gpt-9", {"message": "sk-secret"})
            yield ""

        return OfflineModel() if name == "offline" else FunctionModel(stream_function=stream)


async def test_the_offline_model_goes_on_where_a_provider_is_down() -> None:
    async with Bench(tools=CannedTools().make(), loop=ModelLoop(ProviderDown())) as bench:
        told = await bench.ask("Analyze my AI costs")
    async with Bench(tools=CannedTools().make()) as bench:
        offline = await bench.ask("Analyze my AI costs")
    assert told.final.content == offline.final.content
    assert (told.final.degraded, offline.final.degraded) == (True, False)
    degraded = [p.message for p in told.bodies(AgentProgress) if p.stage is ProgressStage.DEGRADED]
    assert [message.partition(":")[0] for message in degraded] == ["Triage", "Data"]
    assert all(message.endswith("The model 'offline' goes on.") for message in degraded)
    assert "sk-secret" not in str(told.events)


# Recovery


async def test_a_run_that_is_cut_anywhere_gives_the_same_answer() -> None:
    tools = CannedTools()
    async with Bench(tools=tools.make()) as bench:
        whole = await bench.ask("Analyze my AI costs")
        ids = [call.tool_call_id for call in whole.bodies(ToolExecuting)]
        cuts = set()
        for seq in range(1, len(whole.events), 3):
            cut = await bench.crash_after("Analyze my AI costs", seq)
            if (await bench.storage.runs.get("ann", cut.run.run_id)).status is not RunStatus.RUNNING:
                continue
            cuts.add(cut.events[-1].seq)
            await bench.attempts().work(Job(await bench.claim(cut.run)))
            told = await bench.told(cut.run)
            assert told.final.content == whole.final.content, seq
            assert told.final.missing_data == whole.final.missing_data, seq
            assert [call.tool_call_id for call in told.bodies(ToolExecuting)] == ids, seq
            assert sorted(call.tool_call_id for call in told.bodies(ToolCompleted)) == sorted(ids), seq
            assert len(told.bodies(AgentStarted)) == 1, seq
    assert len(cuts) > 8, cuts


async def test_finished_steps_and_finished_calls_are_not_run_again() -> None:
    tools = CannedTools(stuck="cost_breakdown")
    async with Bench(tools=tools.make()) as bench:
        run = await bench.accept("Analyze my AI costs")
        job = Job(await bench.claim(run))
        job.task = asyncio.create_task(bench.attempts().work(job))
        async with await bench.watch(run) as watch:
            async for events in watch:
                done = [e.body for e in bench.decode(events) if isinstance(e.body, ToolCompleted)]
                if any(body.tool_name == "usage_summary" for body in done):
                    break
        job.task.cancel()
        await asyncio.wait({job.task})
        assert tools.ran == ["0-triage.c1", "0-triage.c2", "1-data.c1", "1-data.c2"]
        tools.stuck = ""
        tools.ran.clear()
        await bench.attempts().work(Job(await bench.claim(run)))
        told = await bench.told(run)
    assert tools.ran == ["1-data.c2"]
    assert [progress.stage for progress in told.bodies(AgentProgress)].count(ProgressStage.CLASSIFIED) == 1
    assert [progress.stage for progress in told.bodies(AgentProgress)].count(ProgressStage.RESUMED) == 1
    assert len(told.bodies(ToolExecuting)) == 4
    assert told.completed.usage.model_requests == 4


async def test_a_step_that_is_finished_is_not_run_again_when_a_later_one_is_cut() -> None:
    tools, loop = CannedTools(stuck="usage_summary"), TwoStepLoop()
    actions = Agent("actions", "Actions", "Plans.", "Plan.", ("usage_summary",))
    async with Bench(agents=(*AGENTS, actions), tools=tools.make(), loop=loop) as bench:
        run = await bench.accept("cut costs")
        job = Job(await bench.claim(run))
        job.task = asyncio.create_task(bench.attempts().work(job))
        async with await bench.watch(run) as watch:
            async for events in watch:
                if any(isinstance(event.body, ToolExecuting) for event in bench.decode(events)):
                    break
        job.task.cancel()
        await asyncio.wait({job.task})
        tools.stuck = ""
        await bench.attempts().work(Job(await bench.claim(run)))
        told = await bench.told(run)
    assert [step.agent.name for step in loop.steps] == ["triage", "data", "actions", "actions"]
    assert loop.steps[-1].findings == loop.steps[-2].findings
    assert told.final.content == "Right."


async def test_a_worker_that_stops_hands_over_at_each_safe_point_and_nothing_is_done_twice() -> None:
    loop = TwoStepLoop()
    async with Bench(tools=CannedTools().make(), loop=loop) as bench:
        run = await bench.accept("cut costs")
        for _ in range(3):
            await bench.attempts().work(Job(await bench.claim(run), handover=True))
        assert [step.agent.name for step in loop.steps] == ["triage"]
        await bench.attempts().work(Job(await bench.claim(run)))
        told = await bench.told(run)
    assert [step.agent.name for step in loop.steps] == ["triage", "data"]
    stages = [progress.stage for progress in told.bodies(AgentProgress)]
    told_once = (ProgressStage.CLASSIFIED, ProgressStage.PLANNED, ProgressStage.STEP)
    assert [stage for stage in stages if stage in told_once] == [*told_once, ProgressStage.STEP]
    assert [move.to_agent for move in told.bodies(AgentHandoff)] == ["triage", "data"]
