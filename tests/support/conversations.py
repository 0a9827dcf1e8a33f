"""Whole runs in one process: the real engine, agents, tools and offline model over storage in memory."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeVar

from pydantic import BaseModel

from agent_service.agents.data import DATA
from agent_service.agents.supervisor import SUPERVISOR
from agent_service.agents.triage import TRIAGE
from agent_service.api.wire import ProtoCodec
from agent_service.engine.agent import Agent
from agent_service.engine.answer_cache import AnswerCache, version_of_files
from agent_service.engine.approvals import Approvals, Verdict
from agent_service.engine.attempt import Attempts, Job
from agent_service.engine.broadcast import Broadcast, Watch
from agent_service.engine.clock import SystemClock, SystemIds
from agent_service.engine.commands import Reference, RunCommand, RunSettings
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.events import (
    AgentCompleted,
    AgentError,
    ApprovalDecision,
    ApprovalRequested,
    ApprovalResolved,
    Event,
    FinalResponse,
    JsonObject,
    ToolCompleted,
)
from agent_service.engine.journal import Journal
from agent_service.engine.limits import ToolLimits
from agent_service.engine.ports import AgentLoop, Clock
from agent_service.engine.registry import Registry
from agent_service.engine.retry import Backoff
from agent_service.engine.runs import Runs
from agent_service.engine.supervisor import Supervisor
from agent_service.engine.tool import Tool
from agent_service.llm.loop import ModelLoop
from agent_service.llm.models import Models
from agent_service.specialists import OWN_AGENTS, Workplace, own_tools
from agent_service.tools.data import NO_DATABASES
from agent_service.tools.datasets import is_data
from agent_service.tools.sandbox import Sandbox, SandboxLimits
from storage.interfaces import Cache
from storage.memory import MemoryStorage
from storage.records import FileRecord, RunRecord, RunStatus, StoredEvent
from tests.support.grammar import check_run
from tests.support.loops import no_wait

BodyT = TypeVar("BodyT")

AGENTS = (SUPERVISOR, TRIAGE, DATA)
"""The agents that `CannedTools` has tools for."""

USER = UserExecutionContext("ann", frozenset(), "token", datetime(2100, 1, 1, tzinfo=UTC), "request")


class NoWorkforce:
    """Implements `engine.runs.Workforce`: the test itself is the worker."""

    is_busy = False

    def wake(self) -> None:
        """Do nothing."""

    async def cancel(self, run: RunRecord, reason: str) -> None:
        """Do nothing."""

    async def decide(
        self, user: UserExecutionContext, run_id: str, approval_id: str, verdict: Verdict
    ) -> ApprovalDecision:
        """Do nothing."""
        return verdict.decision


@dataclass(frozen=True, slots=True)
class Told:
    """What a run told: its events, as they are in the log."""

    run: RunRecord
    events: Sequence[Event]

    def bodies(self, kind: type[BodyT]) -> list[BodyT]:
        """Return the bodies of this kind, in order."""
        return [event.body for event in self.events if isinstance(event.body, kind)]

    @property
    def final(self) -> FinalResponse:
        """Return the answer; the run must have one."""
        assert self.bodies(FinalResponse), self.events[-1]
        return self.bodies(FinalResponse)[0]

    @property
    def error(self) -> AgentError:
        """Return the error that ended the run."""
        assert self.bodies(AgentError), self.events[-1]
        return self.bodies(AgentError)[0]

    @property
    def completed(self) -> AgentCompleted:
        """Return the end of a run that ended well."""
        return self.bodies(AgentCompleted)[0]

    def result(self, tool_name: str) -> JsonObject:
        """Return what this tool found last."""
        found = [body.result for body in self.bodies(ToolCompleted) if body.tool_name == tool_name]
        assert found
        assert found[-1] is not None
        return found[-1]


@dataclass(slots=True)
class Bench:
    """An engine of its own. `agents`, `tools` and `loop` may take the shipped ones' place. Retries do not wait.

    `clock` is everybody's: with a stopped one a run tells the same each time, apart from ids.
    """

    agents: Sequence[Agent] = ()
    tools: Sequence[Tool[BaseModel]] = ()
    loop: AgentLoop = field(default_factory=lambda: ModelLoop(Models()))
    step_timeout_ms: int = 30_000
    databases: Mapping[str, str] = field(default_factory=lambda: NO_DATABASES)
    run_timeout_ms: int = 240_000
    larger_model: str = ""
    cache: Cache | None = None
    edition: str = ""
    clock: Clock = field(default_factory=SystemClock)
    degraded: list[str] = field(default_factory=list)
    storage: MemoryStorage = field(init=False)
    registry: Registry = field(init=False)
    journal: Journal = field(init=False)
    broadcast: Broadcast = field(init=False)
    supervisor: Supervisor = field(init=False)
    _place: Workplace = field(init=False)
    _codec: ProtoCodec = field(default_factory=ProtoCodec)

    async def __aenter__(self) -> Self:
        self.storage = MemoryStorage(self.clock.now)
        self._place = Workplace(reader=Sandbox(SandboxLimits(max_children=1, memory_mib=256)))
        tools = self.tools or own_tools(self.storage, self._place, self.clock, self.databases)
        self.registry = Registry(self.agents or (AGENTS if self.tools else OWN_AGENTS), tools)
        self.broadcast = Broadcast(self.storage.events, self.storage.runs)
        self.journal = Journal(self.storage.events, self.broadcast.publish)
        self.journal.start()
        versions = (version_of_files(self.storage.files, is_data), self.storage.corpora.version)
        self.supervisor = Supervisor(
            registry=self.registry,
            loop=self.loop,
            clock=self.clock,
            step_timeout_ms=self.step_timeout_ms,
            run_timeout_ms=self.run_timeout_ms,
            larger_model=self.larger_model,
            cache=AnswerCache(
                self.cache,
                self.storage.files,
                self.clock,
                versions=versions,
                live_tools=self.registry.live_tools,
                edition=self.edition,
            )
            if self.cache
            else None,
            backoff=Backoff(sleep=no_wait),
            degraded=self.degraded.append,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.journal.close()
        await self._place.close()
        await self.storage.close()

    async def put(self, name: str, content: bytes) -> FileRecord:
        """Upload a file."""
        ids, now = SystemIds(), self.clock.now()
        async with self.storage.files.upload(USER.user_id, ids.new(), name, "", max_bytes=1 << 30) as upload:
            await upload.write(content)
            return await upload.commit(now)

    async def ask(
        self,
        content: str,
        *,
        thread_id: str = "",
        agent: str = "",
        settings: RunSettings | None = None,
        references: tuple[Reference, ...] = (),
        caller: UserExecutionContext = USER,
    ) -> Told:
        """Send a message and work on it to its end; whoever is asked about a call agrees."""
        run = await self.accept(
            content, thread_id=thread_id, agent=agent, settings=settings, references=references, caller=caller
        )
        await self.attempts().work(Job(await self.claim(run)))
        while await self._agree(run):
            await self.attempts().work(Job(await self.claim(run)))
        return await self.told(run)

    async def _agree(self, run: RunRecord) -> bool:
        """Agree to every call of the run that waits; tell whether there was any."""
        waits = (await self.storage.runs.get(run.user_id, run.run_id)).status is RunStatus.WAITING_APPROVAL
        if waits:
            approvals = Approvals(self.storage, self.broadcast, self.registry.tools, self._codec, self.clock)
            events = (await self.told(run)).events
            answered = {event.body.approval_id for event in events if isinstance(event.body, ApprovalResolved)}
            for event in events:
                if isinstance(event.body, ApprovalRequested) and event.body.approval_id not in answered:
                    agreed = Verdict(ApprovalDecision.APPROVED)
                    await approvals.resolve(
                        replace(USER, user_id=run.user_id), run.run_id, event.body.approval_id, agreed
                    )
        return waits

    async def crash_after(self, content: str, seq: int) -> Told:
        """Work on a message until event `seq` is committed, then lose the worker as a killed process would."""
        run = await self.accept(content)
        job = Job(await self.claim(run))
        job.task = asyncio.create_task(self.attempts().work(job))
        async with await self.watch(run) as watch:
            async for events in watch:
                if events[-1].seq >= seq:
                    break
        job.task.cancel()
        await asyncio.wait({job.task})
        return await self.told(run)

    async def accept(
        self,
        content: str,
        *,
        thread_id: str = "",
        agent: str = "",
        settings: RunSettings | None = None,
        references: tuple[Reference, ...] = (),
        caller: UserExecutionContext = USER,
    ) -> RunRecord:
        """Accept a message."""
        runs = Runs(
            storage=self.storage,
            broadcast=self.broadcast,
            workforce=NoWorkforce(),
            registry=self.registry,
            models={"offline": True},
            codec=self._codec,
            clock=self.clock,
            ids=SystemIds(),
        )
        command = RunCommand(
            content, thread_id=thread_id, agent=agent, settings=settings or RunSettings(), references=references
        )
        return (await runs.accept(caller, command)).run

    async def claim(self, run: RunRecord) -> RunRecord:
        """Claim a run: queued, or abandoned by a worker whose process is gone."""
        await self.storage.runs.release_all()
        claimed = await self.storage.runs.claim("bench", lease_ms=60_000, limit=1)
        assert [one.run_id for one in claimed] == [run.run_id]
        return claimed[0]

    def attempts(self) -> Attempts:
        """Return what works on claimed runs."""
        return Attempts(
            storage=self.storage,
            journal=self.journal,
            broadcast=self.broadcast,
            supervisor=self.supervisor,
            tools=self.registry.tools,
            limits=ToolLimits(),
            codec=self._codec,
            clock=self.clock,
            ids=SystemIds(),
            run_timeout_ms=self.run_timeout_ms,
            max_history=100,
        )

    async def told(self, run: RunRecord) -> Told:
        """Return what the log holds of a run, checked against the grammar."""
        told = Told(run, self.decode(await self.stored(run)))
        check_run(told.events, finished=told.events[-1].terminal)
        return told

    async def stored(self, run: RunRecord) -> Sequence[StoredEvent]:
        """Return the run's log as it is stored."""
        return await self.storage.events.read(run.user_id, run.run_id, 0, max_events=10_000, max_bytes=1 << 26)

    async def watch(self, run: RunRecord) -> Watch:
        """Return the run's events as they are committed, from the first."""
        return await self.broadcast.watch(USER, run.run_id, 0)

    def decode(self, stored: Sequence[StoredEvent]) -> list[Event]:
        """Return what the bytes say."""
        return [self._codec.decode(event.data) for event in stored]
