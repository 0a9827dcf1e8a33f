"""What a step may do to the outside, and its bounds."""

from collections.abc import Awaitable, Callable

import pytest

from agent_service.engine.events import AgentThinking, JsonObject, PartialResult
from agent_service.engine.intents import Intent, Triage
from agent_service.engine.ports import Step, StepResult, StepSink
from agent_service.engine.step import CUT_NOTICE, MAX_ANSWER_BYTES, MAX_THOUGHT_CHARACTERS, note_missing
from tests.support.canned_tools import CannedTools
from tests.support.conversations import Bench
from tests.support.loops import OneModelOnly


class Saying(OneModelOnly):
    """Implements `AgentLoop`: the data step says what it is told to."""

    def __init__(self, speak: Callable[[StepSink], Awaitable[None]]) -> None:
        self._speak = speak

    async def run(self, step: Step, sink: StepSink) -> StepResult:
        if not step.writes_answer:
            return StepResult(Triage(category=Intent.COST_ANALYSIS, confidence=0.9, summary="Costs."))
        await self._speak(sink)
        return StepResult("said")


ROOM = MAX_ANSWER_BYTES - len(CUT_NOTICE.encode())


@pytest.mark.parametrize(("size", "cut"), [(ROOM, False), (ROOM + 1, True)])
async def test_an_answer_is_cut_at_its_bound_and_says_so(size: int, *, cut: bool) -> None:
    async def speak(sink: StepSink) -> None:
        await sink.text("x" * (size - 100))
        await sink.text("é" * 50)
        await sink.text("")
        await sink.text("y" if cut else "")

    async with Bench(tools=CannedTools().make(), loop=Saying(speak)) as bench:
        told = await bench.ask("costs")
    assert told.final.content.endswith(CUT_NOTICE) is cut
    assert len(told.final.content.encode()) <= MAX_ANSWER_BYTES


async def test_after_the_cut_nothing_more_is_said_until_the_text_is_taken_back() -> None:
    async def speak(sink: StepSink) -> None:
        await sink.text("x" * MAX_ANSWER_BYTES)
        await sink.text("more")
        await sink.discard_text()
        await sink.text("Short.")

    async with Bench(tools=CannedTools().make(), loop=Saying(speak)) as bench:
        told = await bench.ask("costs")
    assert [piece.text for piece in told.bodies(PartialResult)] == [CUT_NOTICE, "Short."]
    assert told.final.content == "Short."


async def test_a_large_piece_is_told_in_pieces_that_fit() -> None:
    async def speak(sink: StepSink) -> None:
        await sink.text("\U0001f4b8" * 20_000)

    async with Bench(tools=CannedTools().make(), loop=Saying(speak)) as bench:
        told = await bench.ask("costs")
    pieces = [piece.text for piece in told.bodies(PartialResult)]
    assert max(len(piece.encode()) for piece in pieces) <= 64 * 1024
    assert "".join(pieces) == told.final.content == "\U0001f4b8" * 20_000


async def test_a_nul_of_a_model_does_not_reach_the_database() -> None:
    async def speak(sink: StepSink) -> None:
        await sink.text("a\x00b")

    async with Bench(tools=CannedTools().make(), loop=Saying(speak)) as bench:
        told = await bench.ask("costs")
    assert told.final.content == "a\ufffdb"


async def test_thoughts_are_trimmed_bounded_and_never_empty() -> None:
    async def speak(sink: StepSink) -> None:
        await sink.thought(" \n")
        await sink.thought(" I think. ")
        await sink.thought("z" * (MAX_THOUGHT_CHARACTERS + 1))
        await sink.text("Done.")

    async with Bench(tools=CannedTools().make(), loop=Saying(speak)) as bench:
        told = await bench.ask("costs")
    thoughts = [one.thought for one in told.bodies(AgentThinking)][1:]
    assert thoughts == ["I think.", "z" * MAX_THOUGHT_CHARACTERS]
    assert [(one.step, one.total_steps) for one in told.bodies(AgentThinking)][1:] == [(1, 1), (1, 1)]


ENTRY: JsonObject = {"column": "model", "why_it_matters": "Prices.", "how_to_supply": "Say it."}


@pytest.mark.parametrize(
    ("args", "result", "missing"),
    [
        ({}, {"missing": [ENTRY, ENTRY]}, {"model": "model: Prices. Say it."}),
        ({"columns": {"model": ""}}, {"missing": [ENTRY]}, {}),
        ({"columns": {"model": "engine"}}, {"missing": [ENTRY]}, {"model": "model: Prices. Say it."}),
        ({}, {"missing": [{"column": "user"}]}, {"user": "user:"}),
        ({}, {"missing": ["odd", {"column": 1}, None]}, {}),
        ({}, {"missing": "odd"}, {}),
        ({"columns": "odd"}, {}, {}),
        ({}, None, {}),
    ],
)
def test_what_tools_miss_is_noted_once(args: JsonObject, result: JsonObject | None, missing: dict[str, str]) -> None:
    found: dict[str, str] = {}
    note_missing(found, args, result)
    assert found == missing
