"""A whole engine over any storage, with a supervisor that plays scripts in place of agents and models.

async with Workshop(storage) as shop:
    shop.supervisor.scripts["hello"] = my_script
    run = await shop.accept("hello")
    told = await shop.told(run)
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self, TypeVar

from pydantic import BaseModel

from agent_service.api.wire import ProtoCodec
from agent_service.engine.agent import Agent
from agent_service.engine.approvals import Approvals
from agent_service.engine.attempt import Attempts
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.clock import SystemClock, SystemIds
from agent_service.engine.commands import RunCommand, RunSettings
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.events import AgentThinking, Body, Effect, Event, FinalResponse, JsonObject, PartialResult
from agent_service.engine.journal import Journal
from agent_service.engine.limits import ToolLimits
from agent_service.engine.ports import Clock, ToolCall, ToolOutcome
from agent_service.engine.registry import Registry
from agent_service.engine.runs import Runs
from agent_service.engine.threads import Threads
from agent_service.engine.tool import Tool, ToolContext, ToolOutput
from agent_service.engine.work import Work
from agent_service.engine.worker import Worker
from storage.interfaces import Storage
from storage.records import RunRecord, StoredEvent, ThreadConflict
from tests.support.consent import call_with_consent
from tests.support.cuttable_storage import EVERYTHING, CuttableStorage
from tests.support.gates import TIMEOUT_S, Gate
from tests.support.grammar import check_run

BodyT = TypeVar("BodyT")
Script = Callable[[Work], Awaitable[FinalResponse]]

STEP: Final = "1-data"
LEASE_MS: Final = 60_000
#: No test waits for these; they only bound how late a thing is noticed.
INTERVAL_MS: Final = 20
AGENT: Final = Agent("data", "Data", "Measures.", "Measure.")


def user(user_id: str = "ann", *scopes: str) -> UserExecutionContext:
    """Return a verified caller."""
    return UserExecutionContext(user_id, frozenset(scopes), "token", datetime(2100, 1, 1, tzinfo=UTC), "request")


ANN: Final = user("ann")
BOB: Final = user("bob")


class NoArgs(BaseModel):
    """The arguments of a tool that takes none."""


def a_tool(
    name: str,
    run: Callable[[ToolContext], Awaitable[JsonObject]],
    effect: Effect = Effect.READ_ONLY,
    *,
    timeout_ms: int = 10_000,
    scopes: frozenset[str] = frozenset(),
) -> Tool[BaseModel]:
    """Return a tool without arguments."""

    async def call(context: ToolContext, _: BaseModel) -> ToolOutput:
        return ToolOutput(f"{name} is done.", await run(context))

    return Tool(name, f"Does {name}. Nothing else.", NoArgs, effect, timeout_ms, call, scopes)


async def think(work: Work, thought: str = "Hm.") -> None:
    """Emit a thought."""
    await work.emitter.emit("data", AgentThinking(thought))


async def say(work: Work, text: str) -> None:
    """Emit a piece of the answer."""
    await work.emitter.emit("data", PartialResult(work.message_id, text))


async def call_tool(work: Work, name: str, call_id: str = "a", **args: str) -> ToolOutcome:
    """Run a tool as a step of the data agent would."""
    return await work.dispatcher.call("data", STEP, ToolCall(call_id, name, args), frozenset({name}))


async def call_agreed_tool(work: Work, name: str, call_id: str = "a") -> ToolOutcome:
    """Do the same with a tool that needs a person's consent, and has it."""
    return await call_with_consent(work, "data", STEP, ToolCall(call_id, name, {}))


async def answer(work: Work) -> FinalResponse:
    """Play the shortest run: a thought and an answer that repeats the message."""
    await think(work)
    await say(work, f"You said {work.command.content}.")
    return FinalResponse(work.message_id, f"You said {work.command.content}.")


def held(gate: Gate) -> Script:
    """Return a script that answers when the gate lets it."""

    async def script(work: Work) -> FinalResponse:
        await think(work)
        await gate.passage()
        return await answer(work)

    return script


class ScriptedSupervisor:
    """Implements `engine.attempt.RunSupervisor`: plays the script that the message names, else `answer`."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        #: The messages of the attempts, in the order in which they began.
        self.begun: list[str] = []
        self.at_work: list[str] = []
        self.most_at_work = 0
        #: What scripts held and did not find: to the engine that is a failed run like any other.
        self.disproved: list[AssertionError] = []

    async def run(self, work: Work) -> FinalResponse:
        content = work.command.content
        self.begun.append(content)
        self.at_work.append(content)
        self.most_at_work = max(self.most_at_work, len(self.at_work))
        try:
            return await self.scripts.get(content, answer)(work)
        except AssertionError as error:
            self.disproved.append(error)
            raise
        finally:
            self.at_work.remove(content)


@dataclass(frozen=True, slots=True)
class Told:
    """What the log of a run says."""

    events: Sequence[Event]

    def of(self, kind: type[BodyT]) -> list[BodyT]:
        """Return the bodies of this kind, in order."""
        return [event.body for event in self.events if isinstance(event.body, kind)]

    @property
    def end(self) -> Body:
        """The last event's body."""
        return self.events[-1].body

    @property
    def attempts(self) -> list[int]:
        """The attempt of each event."""
        return [event.attempt for event in self.events]

    def kinds(self) -> list[str]:
        """Return the names of the bodies' classes, in order."""
        return [type(event.body).__name__ for event in self.events]


@dataclass(slots=True)
class Workshop:
    """One process's engine. `alone`: it starts as the embedded service does, taking up every open run at once."""

    inner: Storage
    slots: int = 2
    tools: Sequence[Tool[BaseModel]] = ()
    supervisor: ScriptedSupervisor = field(default_factory=ScriptedSupervisor)
    alone: bool = True
    worker_id: str = "worker"
    lease_ms: int = LEASE_MS
    beat_interval_ms: int = INTERVAL_MS
    poll_interval_ms: int = INTERVAL_MS
    broadcast_poll_ms: int = INTERVAL_MS
    run_timeout_ms: int = 30_000
    approval_timeout_ms: int = 60_000
    settle_ms: int = 5_000
    retry_delays_ms: Sequence[int] = (1, 1, 1)
    limits: ToolLimits = field(default_factory=ToolLimits)
    models: Mapping[str, bool] = field(default_factory=lambda: {"offline": True})
    clock: Clock = field(default_factory=SystemClock)
    storage: CuttableStorage = field(init=False)
    broadcast: Broadcast = field(init=False)
    journal: Journal = field(init=False)
    worker: Worker = field(init=False)
    runs: Runs = field(init=False)
    threads: Threads = field(init=False)
    _codec: ProtoCodec = field(default_factory=ProtoCodec)

    async def __aenter__(self) -> Self:
        clock, ids = self.clock, SystemIds()
        self.storage = CuttableStorage(self.inner)
        registry = Registry([AGENT], self.tools)
        self.broadcast = Broadcast(self.storage.events, self.storage.runs, poll_interval_ms=self.broadcast_poll_ms)
        self.journal = Journal(self.storage.events, self.broadcast.publish, retry_delays_ms=self.retry_delays_ms)
        attempts = Attempts(
            storage=self.storage,
            journal=self.journal,
            broadcast=self.broadcast,
            supervisor=self.supervisor,
            tools=registry.tools,
            limits=self.limits,
            codec=self._codec,
            clock=clock,
            ids=ids,
            run_timeout_ms=self.run_timeout_ms,
            max_history=100,
            approval_timeout_ms=self.approval_timeout_ms,
        )
        approvals = Approvals(
            self.storage, self.broadcast, registry.tools, self._codec, clock, settle_ms=self.settle_ms
        )
        self.worker = Worker(
            self.storage.runs,
            attempts,
            approvals,
            worker_id=self.worker_id,
            slots=self.slots,
            lease_ms=self.lease_ms,
            beat_interval_ms=self.beat_interval_ms,
            poll_interval_ms=self.poll_interval_ms,
        )
        self.runs = Runs(
            storage=self.storage,
            broadcast=self.broadcast,
            workforce=self.worker,
            registry=registry,
            models=self.models,
            codec=self._codec,
            clock=clock,
            ids=ids,
        )
        self.threads = Threads(self.storage.threads, self.runs, self.broadcast, clock, ids)
        if self.alone:
            await self.inner.runs.release_all()
        self.broadcast.start()
        self.journal.start()
        self.worker.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.storage.open_gates()
        await self.stop()
        if error is None and self.supervisor.disproved:
            raise self.supervisor.disproved[0]

    async def stop(self, *, grace_ms: int = 0) -> None:
        """Stop as the service does: hand over what is open."""
        await self.worker.drain(grace_ms=grace_ms)
        await self.journal.close()
        await self.broadcast.close()

    async def crash(self) -> None:
        """Die: from now on nothing of this process reaches the storage."""
        self.storage.cut |= EVERYTHING
        self.storage.open_gates()
        await self.stop()

    async def accept(
        self,
        content: str,
        caller: UserExecutionContext = ANN,
        *,
        thread_id: str = "",
        key: str = "",
        conflict: ThreadConflict = ThreadConflict.ENQUEUE,
        timeout_ms: int | None = None,
    ) -> RunRecord:
        """Send a message."""
        settings = RunSettings(timeout_ms=timeout_ms)
        command = RunCommand(content, thread_id=thread_id, client_message_id=key, settings=settings, conflict=conflict)
        return (await self.runs.accept(caller, command)).run

    async def told(self, run: RunRecord) -> Told:
        """Watch a run to its end, check it against the grammar, and return what it told."""
        stored: list[StoredEvent] = []
        async with asyncio.timeout(TIMEOUT_S):
            async with await self.broadcast.watch(user(run.user_id), run.run_id, 0) as watch:
                async for batch in watch:
                    stored += batch
        told = Told([self._codec.decode(event.data) for event in stored])
        check_run(told.events)
        return told

    async def now(self, run: RunRecord) -> RunRecord:
        """Return the run as it is stored now."""
        return await self.inner.runs.get(run.user_id, run.run_id)

    async def so_far(self, run: RunRecord) -> Told:
        """Return what is in the log of a run, ended or not."""
        stored = await self.inner.events.read(run.user_id, run.run_id, 0, max_events=10_000, max_bytes=1 << 28)
        told = Told([self._codec.decode(event.data) for event in stored])
        check_run(told.events, finished=False)
        return told
