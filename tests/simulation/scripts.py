"""What the agents of a simulation do: the message says it, so that every attempt, on any machine, does the same.

A message is `kind/number`. The number seeds what happens in it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from pydantic import BaseModel

from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import (
    AgentProgress,
    AgentThinking,
    Effect,
    FinalResponse,
    PartialResult,
    ProgressStage,
    ToolStatus,
)
from agent_service.engine.ports import ToolCall
from agent_service.engine.tool import Tool, ToolContext, ToolError, ToolOutput
from agent_service.engine.work import Work
from storage.records import RunRecord
from tests.simulation.loop import Machine, here
from tests.support.consent import call_with_consent

AGENT: Final = "data"
STEP: Final = "1-data"
KINDS: Final[Mapping[str, int]] = {
    "talk": 40,
    "tools": 30,
    "burst": 8,
    "steady": 14,
    "wait": 6,
    "fail": 4,
    "defect": 3,
    "late": 3,
    "deaf": 2,
    "poison": 2,
}
"""Kinds of messages, and how often they are sent."""

FATAL: Final = frozenset({"poison"})
"""Those that take their machine with them."""

HANG_S: Final = 100_000.0


class PlannedDefectError(Exception):
    """An agent of ours has a defect."""


class NoArgs(BaseModel):
    """The arguments of a tool that takes none."""


def a_message(chance: Random, kinds: Sequence[str]) -> str:
    """Return a message of one of these kinds."""
    kind = chance.choices(kinds, [KINDS[kind] for kind in kinds])[0]
    return f"{kind}/{chance.randrange(1 << 30)}"


@dataclass(slots=True)
class Effects:
    """What the tools did to the world: how often each call took effect."""

    done: Counter[tuple[str, str]] = field(default_factory=Counter)

    def tools(self) -> Sequence[Tool[BaseModel]]:
        """Return one tool of each effect, and one that fails."""
        return [
            self._tool("look", Effect.READ_ONLY),
            self._tool("put", Effect.IDEMPOTENT),
            self._tool("pay", Effect.UNSAFE),
            self._tool("break", Effect.READ_ONLY),
        ]

    def _tool(self, name: str, effect: Effect) -> Tool[BaseModel]:
        async def run(context: ToolContext, _: BaseModel) -> ToolOutput:
            chance = Random(context.tool_call_id + context.message)
            await _pass(chance)
            if name == "break":
                raise chance.choice([ToolError("It does not work."), PlannedDefectError()])
            self.done[context.run_id, context.tool_call_id] += 1
            if chance.random() < 0.3:
                await context.progress("Half of it is done.", 0.5)
            await _pass(chance)
            return ToolOutput(f"{name} is done.", {"tool": name})

        return Tool(name, f"Does {name}.", NoArgs, effect, 10_000, run)


async def _pass(chance: Random) -> None:
    """Let time pass, mostly little."""
    await asyncio.sleep(chance.choice([0, 0, 0.001, 0.02, 0.3, chance.expovariate(1)]))


@dataclass(frozen=True, slots=True)
class Place:
    """Where an act is played: the run, and the act's number in it."""

    work: Work
    number: int

    @property
    def chance(self) -> Random:
        """What is left to chance here: the same in every attempt."""
        return Random(f"{self.work.command.content} {self.number}")


Act = Callable[[Place], Awaitable[None]]


class ScriptedAgents:
    """Implements `engine.attempt.RunSupervisor`. The checkpoint is the number of acts that are done.

    `begun` hears of each attempt; `kill` ends a machine at once.
    """

    def __init__(self, begun: Callable[[RunRecord], None], kill: Callable[[Machine], None]) -> None:
        self._begun = begun
        self._kill = kill

    async def run(self, work: Work) -> FinalResponse:
        self._begun(work.run)
        acts, answer = self._play(work.command.content)
        begin = int(work.checkpoint or b"0")
        for number, act in enumerate(acts):
            if number >= begin:
                await act(Place(work, number))
        return FinalResponse(work.message_id, answer)

    def _play(self, message: str) -> tuple[Sequence[Act], str]:
        """Return the acts of a message, and the answer that they lead to."""
        kind, _, _ = message.partition("/")
        chance = Random(message)
        words = [f"{kind} {number} " * chance.randint(1, 3) for number in range(chance.randint(1, 4))]
        says = [_saying(word) for word in words]
        tools = [_calling(chance.choice(["look", "put", "pay", "pay", "break"])) for _ in range(chance.randint(1, 3))]
        plays: dict[str, Sequence[Act]] = {
            "talk": says,
            "tools": [*tools, _report, *tools, *says],
            "burst": [_bursting(chance.randint(8, 30)), *says],
            "steady": [*[_report, _linger] * chance.randint(3, 12), *says],
            "wait": [_report, _hang],
            "late": [*says, _hang],
            "fail": [*tools[:1], _fail],
            "defect": [*says, _break],
            "deaf": [_ignore, *says],
            "poison": [self._die],
        }
        return [_think, *plays[kind]], "".join(words)

    async def _die(self, _: Place) -> None:
        machine = here()
        assert machine is not None
        self._kill(machine)
        await asyncio.sleep(0)


async def _think(place: Place) -> None:
    await place.work.emitter.emit(AGENT, AgentThinking("Hm."))


async def _report(place: Place) -> None:
    place.work.emitter.save_checkpoint(b"%d" % (place.number + 1))
    await place.work.emitter.emit(AGENT, AgentProgress(ProgressStage.STEP, "On we go."))
    await asyncio.sleep(0.05)


async def _linger(place: Place) -> None:
    await place.work.emitter.emit(AGENT, AgentThinking("Still at it."))
    await asyncio.sleep(place.chance.uniform(0.1, 2))


async def _hang(_: Place) -> None:
    await asyncio.sleep(HANG_S)


async def _ignore(_: Place) -> None:
    """Do not stop at once when told to."""
    try:
        await asyncio.sleep(5)
    except asyncio.CancelledError:
        await asyncio.sleep(0.2)


async def _fail(_: Place) -> None:
    raise ApexError(ErrorReason.MODEL_UNAVAILABLE, "No model.")


async def _break(_: Place) -> None:
    raise PlannedDefectError


def _saying(text: str) -> Act:
    async def say(place: Place) -> None:
        await place.work.emitter.emit(AGENT, PartialResult(place.work.message_id, text))
        await _pass(place.chance)

    return say


def _bursting(pieces: int) -> Act:
    async def burst(place: Place) -> None:
        for _ in range(pieces):
            await place.work.emitter.emit(AGENT, AgentThinking("On and on."))

    return burst


def _calling(name: str) -> Act:
    async def call(place: Place) -> None:
        wanted = ToolCall(str(place.number), name, {})
        if name == "pay":
            outcome = await call_with_consent(place.work, AGENT, STEP, wanted)
        else:
            outcome = await place.work.dispatcher.call(AGENT, STEP, wanted, frozenset({name}))
        shown = outcome.result
        assert outcome.status is not ToolStatus.SUCCESS or (shown is not None and shown["tool"] == name)

    return call
