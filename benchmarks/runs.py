"""What a run costs beside its tools: the engine alone, and with the offline model. In one process, storage in memory.

The floor is the engine whose agents answer at once, without a model; everything else is compared with it.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from agent_service.api.wire import ProtoCodec
from agent_service.engine.approvals import Verdict
from agent_service.engine.attempt import Attempts, Job
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.clock import SystemClock, SystemIds
from agent_service.engine.commands import RunCommand
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.events import ApprovalDecision, FinalResponse, ToolCompleted
from agent_service.engine.intents import TRIAGE, Intent, Triage
from agent_service.engine.journal import Journal
from agent_service.engine.limits import ToolLimits
from agent_service.engine.ports import AgentLoop, Step, StepResult, StepSink
from agent_service.engine.registry import Registry
from agent_service.engine.runs import Runs
from agent_service.engine.supervisor import Supervisor
from agent_service.llm.loop import ModelLoop
from agent_service.llm.models import Models
from agent_service.specialists import OWN_AGENTS, Workplace, own_tools
from benchmarks.figures import spread
from storage.memory import MemoryStorage
from storage.records import RunRecord

RUN_TIMEOUT_MS: Final = 120_000
STEP_TIMEOUT_MS: Final = 60_000
LABEL_WIDTH: Final = 44
CELL_WIDTH: Final = 32


@dataclass(frozen=True, slots=True)
class Kind:
    """A run that is measured: what is asked, and whether the offline model works on it, or nobody."""

    label: str
    message: str
    offline: bool = True


NOTHING: Final = Kind("nobody works: the engine alone", "Hello", offline=False)
KINDS: Final = (
    NOTHING,
    Kind("offline model, no tools", "What can you do?"),
    Kind("offline model, 2 agents, 4 tools", "Analyze my AI costs"),
)


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Seconds of each run, and how many of them some tool was at work, added up. `events` are those of one run."""

    kind: Kind
    seconds: tuple[float, ...]
    tools_s: tuple[float, ...]
    events: int


def measure(runs: int) -> Sequence[RunTimes]:
    """Make so many runs of each kind, one after the other, after one that is not counted."""
    return [asyncio.run(_measure(kind, runs)) for kind in KINDS]


def table(found: Sequence[RunTimes]) -> str:
    """Return the medians, in milliseconds, and how many times the floor they are."""
    floor = spread(found[0].seconds).median
    lines = ["A run alone, storage in memory, medians (range) in ms, x: times the engine alone", ""]
    lines.append("".ljust(LABEL_WIDTH) + "whole".rjust(CELL_WIDTH) + "in tools".rjust(12) + "events".rjust(8))
    for times in found:
        whole, tools = spread(times.seconds), spread(times.tools_s)
        cell = f"{whole.median * 1e3:.1f} ({whole.low * 1e3:.1f} to {whole.high * 1e3:.1f})"
        texts = (f"{cell} {whole.median / floor:.1f}x".rjust(CELL_WIDTH), f"{tools.median * 1e3:.0f}".rjust(12))
        lines.append(times.kind.label.ljust(LABEL_WIDTH) + "".join(texts) + f"{times.events}".rjust(8))
    return "\n".join([*lines, ""])


async def _measure(kind: Kind, count: int) -> RunTimes:
    engine = _Engine(ModelLoop(Models()) if kind.offline else _Nobody())
    try:
        await engine.run(kind.message)
        found = [await engine.run(kind.message) for _ in range(count)]
    finally:
        await engine.close()
    seconds, tools, events = zip(*found, strict=True)
    return RunTimes(kind, seconds, tools, events[0])


class _Nobody:
    """Implements `AgentLoop`: triage knows at once, and everybody else says one sentence."""

    async def run(self, step: Step, sink: StepSink) -> StepResult:
        if step.agent.name == TRIAGE:
            return StepResult(Triage(category=Intent.COST_ANALYSIS, confidence=1.0, summary="It is asked."))
        await sink.text("Done.")
        return StepResult("Done.")

    def fallbacks(self, model: str = "") -> tuple[str, ...]:
        return ()


class _NoWorkforce:
    """Implements `engine.runs.Workforce`: the benchmark itself is the worker."""

    is_busy = False

    def wake(self) -> None:
        pass

    async def cancel(self, run: RunRecord, reason: str) -> None:
        raise NotImplementedError

    async def decide(
        self, user: UserExecutionContext, run_id: str, approval_id: str, verdict: Verdict
    ) -> ApprovalDecision:
        raise NotImplementedError


class _Engine:
    """An engine over storage in memory, which works on one run at a time."""

    def __init__(self, loop: AgentLoop) -> None:
        clock, ids, self._codec = SystemClock(), SystemIds(), ProtoCodec()
        self._storage, self._place = MemoryStorage(clock.now), Workplace()
        registry = Registry(OWN_AGENTS, own_tools(self._storage, self._place, clock))
        broadcast = Broadcast(self._storage.events, self._storage.runs)
        self._journal = Journal(self._storage.events, broadcast.publish)
        self._journal.start()
        self._runs = Runs(
            storage=self._storage,
            broadcast=broadcast,
            workforce=_NoWorkforce(),
            registry=registry,
            models={"offline": True},
            codec=self._codec,
            clock=clock,
            ids=ids,
        )
        supervisor = Supervisor(
            registry=registry,
            loop=loop,
            clock=clock,
            step_timeout_ms=STEP_TIMEOUT_MS,
            run_timeout_ms=RUN_TIMEOUT_MS,
        )
        self._attempts = Attempts(
            storage=self._storage,
            journal=self._journal,
            broadcast=broadcast,
            supervisor=supervisor,
            tools=registry.tools,
            limits=ToolLimits(),
            codec=self._codec,
            clock=clock,
            ids=ids,
            run_timeout_ms=RUN_TIMEOUT_MS,
            max_history=100,
        )
        self._users = 0

    async def run(self, message: str) -> tuple[float, float, int]:
        """Ask, as a new user; return the seconds to the end, the seconds in tools, and the events."""
        self._users += 1
        user = UserExecutionContext(f"bench-{self._users}", frozenset(), "token", datetime(2100, 1, 1, tzinfo=UTC), "r")
        begin = time.monotonic()
        accepted = (await self._runs.accept(user, RunCommand(message))).run
        (claimed,) = await self._storage.runs.claim("bench", lease_ms=RUN_TIMEOUT_MS, limit=1)
        await self._attempts.work(Job(claimed))
        taken = time.monotonic() - begin
        stored = await self._storage.events.read(user.user_id, accepted.run_id, 0, max_events=10_000, max_bytes=1 << 26)
        bodies = [self._codec.decode(event.data).body for event in stored]
        if not any(isinstance(body, FinalResponse) for body in bodies):
            raise RuntimeError(f"a run failed: {bodies[-1]}")
        tools_ms = sum(body.execution_time_ms for body in bodies if isinstance(body, ToolCompleted))
        return taken, tools_ms / 1000, len(bodies)

    async def close(self) -> None:
        await self._journal.close()
        await self._place.close()
        await self._storage.close()
