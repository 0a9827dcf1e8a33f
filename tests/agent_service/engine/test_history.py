"""What a run is told of what was said before it."""

from agent_service.engine.history import MAX_REFERRED_RUNS, MAX_RESULTS, MAX_SUMMARY_CHARACTERS
from agent_service.engine.intents import Intent
from agent_service.engine.ports import HistoryMessage, Step, StepResult, StepSink, ToolCall
from storage.records import MessageRole
from tests.support.canned_tools import CannedTools
from tests.support.conversations import Bench
from tests.support.loops import ScriptedLoop, triaged


class Looking:
    """A bench whose data agent makes so many calls."""

    def __init__(self, calls: int) -> None:
        self.loop = ScriptedLoop(triaged(Intent.COST_ANALYSIS))
        self.calls = calls
        self.loop.parts["data"] = self.look
        self.tools = CannedTools()
        self.bench = Bench(tools=self.tools.make(), loop=self.loop)

    async def look(self, _step: Step, sink: StepSink) -> StepResult:
        for number in range(self.calls):
            await sink.call_tool(ToolCall(f"c{number}", "usage_summary", {"n": number}))
        await sink.text("Found.")
        return StepResult("Found.")

    @property
    def history(self) -> list[HistoryMessage]:
        return list(self.loop.steps[-1].history)


async def test_earlier_answers_name_their_run_and_what_they_were_made_from() -> None:
    looking = Looking(2)
    async with looking.bench as bench:
        first = await bench.ask("costs")
        looking.tools.broken = "usage_summary"
        await bench.ask("and then?", thread_id=first.run.thread_id)
    question, answer = looking.history
    assert (question.role, question.content, question.results) == (MessageRole.USER, "costs", ())
    assert (answer.role, answer.content, answer.run_id) == (MessageRole.ASSISTANT, "Found.", first.run.run_id)
    assert [(one.tool_call_id, one.summary) for one in answer.results] == [
        ("1-data.c0", "usage_summary looked"),
        ("1-data.c1", "usage_summary looked"),
    ]


async def test_only_the_newest_answers_do_and_failures_are_no_results() -> None:
    looking = Looking(1)
    async with looking.bench as bench:
        thread_id = (await bench.ask("costs")).run.thread_id
        for _ in range(MAX_REFERRED_RUNS - 1):
            await bench.ask("and then?", thread_id=thread_id)
        looking.tools.broken = "usage_summary"
        await bench.ask("and then?", thread_id=thread_id)
        await bench.ask("and then?", thread_id=thread_id)
    answers = [message for message in looking.history if message.role is MessageRole.ASSISTANT]
    assert [len(answer.results) for answer in answers] == [0, 1, 1, 0]


async def test_results_are_bounded() -> None:
    looking = Looking(MAX_RESULTS + 1)
    async with looking.bench as bench:
        first = await bench.ask("costs")
        await bench.ask("and then?", thread_id=first.run.thread_id)
    results = looking.history[1].results
    assert [one.tool_call_id for one in results] == [f"1-data.c{number}" for number in range(1, MAX_RESULTS + 1)]
    assert all(len(one.summary) <= MAX_SUMMARY_CHARACTERS for one in results)
