"""One simulated service process: the real engine on a machine of its own, with a line to the one database."""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from agent_service.api.wire import ProtoCodec
from agent_service.engine.agent import Agent
from agent_service.engine.approvals import Approvals
from agent_service.engine.attempt import Attempts
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.journal import Journal
from agent_service.engine.limits import ToolLimits
from agent_service.engine.registry import Registry
from agent_service.engine.runs import Runs
from agent_service.engine.threads import Threads
from agent_service.engine.tool import Tool
from agent_service.engine.worker import Worker
from tests.simulation.database import Line, LineStorage, SimulatedDatabase
from tests.simulation.loop import Machine, SimulatedLoop
from tests.simulation.scripts import AGENT, ScriptedAgents

T = TypeVar("T")

START: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SLOTS: Final = 3
RUN_TIMEOUT_MS: Final = 30_000
CLOSE_GRACE_S: Final = 5.0


class ConnectionLostError(Exception):
    """The machine died, or stops: whether the call was carried out is not known."""


class Connection:
    """A stream's line, which its caller can cut."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[Any] | None = None

    def cut(self) -> None:
        """Break the line, if there is one."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_exception(ConnectionLostError())


class LoopClock:
    """Implements `engine.ports.Clock` with the loop's time."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.time())

    def monotonic_ms(self) -> int:
        return round(self._loop.time() * 1000)


class CountedIds:
    """Implements `engine.ports.Ids`: short, in order, and the same in each replay."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count}"


class UncountedTools(ToolLimits):
    """Counts no calls: the library that does looks at the real clock."""

    async def permits(self, user_id: str) -> bool:
        return True


class Service:
    """An engine that works. `poll_interval_ms`: how often the broadcast looks at the log by itself."""

    def __init__(
        self,
        name: str,
        loop: SimulatedLoop,
        database: SimulatedDatabase,
        tools: Sequence[Tool[BaseModel]],
        agents: ScriptedAgents,
        *,
        poll_interval_ms: int,
    ) -> None:
        self.machine = Machine(name)
        self.line = Line()
        self.is_stopping = False
        self._loop = loop
        self._ledger = database.ledger
        #: What the callers wait for, and who works on it.
        self._calls: dict[asyncio.Future[Any], asyncio.Task[Any]] = {}
        self._streams: dict[asyncio.Task[Any], None] = {}
        storage, clock, ids = LineStorage(database, self.machine, self.line), LoopClock(loop), CountedIds(f"{name}-")
        codec, registry = ProtoCodec(), Registry([Agent(AGENT, "Data", "Measures.", "Measure.")], tools)
        self.storage = storage
        self.broadcast = Broadcast(storage.events, storage.runs, poll_interval_ms=poll_interval_ms)
        self.journal = Journal(storage.events, self.broadcast.publish)
        attempts = Attempts(
            storage=storage,
            journal=self.journal,
            broadcast=self.broadcast,
            supervisor=agents,
            tools=registry.tools,
            limits=UncountedTools(),
            codec=codec,
            clock=clock,
            ids=ids,
            run_timeout_ms=RUN_TIMEOUT_MS,
            max_history=100,
        )
        approvals = Approvals(storage, self.broadcast, registry.tools, codec, clock)
        self.worker = Worker(storage.runs, attempts, approvals, worker_id=name, slots=SLOTS)
        self.runs = Runs(
            storage=storage,
            broadcast=self.broadcast,
            workforce=self.worker,
            registry=registry,
            models={"offline": True},
            codec=codec,
            clock=clock,
            ids=ids,
        )
        self.threads = Threads(storage.threads, self.runs, self.broadcast, clock, ids)

    @property
    def is_up(self) -> bool:
        """True when it takes calls."""
        return not self.machine.is_dead and not self.is_stopping

    def start(self) -> None:
        """Start all that runs in the background."""
        for start in (self.journal.start, self.broadcast.start, self.worker.start):
            self.machine.context.run(start)

    async def call(self, work: Coroutine[Any, Any, T], *, stream: Connection | None = None) -> T:
        """Carry a caller's request out on this machine. A caller that is cancelled cancels it, as gRPC does.

        Raises `ConnectionLostError`.
        """
        if not self.is_up:
            work.close()
            raise ConnectionLostError
        reply: asyncio.Future[T] = self._loop.create_future()
        task = self._loop.create_task(work, context=self.machine.context.copy())
        self._calls[reply] = task
        if stream is not None:
            stream.reply = reply
            self._streams[task] = None
        task.add_done_callback(partial(_pass_on, reply))
        try:
            return await reply
        finally:
            self._calls.pop(reply, None)
            self._streams.pop(task, None)
            if not task.done() and not self.machine.is_dead:
                task.cancel()

    def crash(self) -> None:
        """Die without a word, as from `kill -9`."""
        self._loop.kill(self.machine)
        self._drop_calls()

    async def stop(self, *, grace_ms: int) -> None:
        """Stop as the service does: accept nothing more, hand over what is open, end all calls.

        Raises `ConnectionLostError` when the machine dies first.
        """
        if self.machine.is_dead:
            raise ConnectionLostError
        self.is_stopping = True
        self._ledger.draining[self.machine] = None
        self.machine.context.run(self.runs.drain)
        stopping = self._loop.create_task(self._stop(grace_ms), context=self.machine.context.copy())
        died = self._loop.create_future()
        self._calls[died] = stopping
        await asyncio.wait([stopping, died], return_when=asyncio.FIRST_COMPLETED)
        self._calls.pop(died, None)
        (died if died.done() else stopping).result()

    async def _stop(self, grace_ms: int) -> None:
        await self.worker.drain(grace_ms=grace_ms)
        for task in list(self._streams):
            task.cancel()
        me = asyncio.current_task()
        if calls := [task for task in self._calls.values() if task is not me]:
            await asyncio.wait(calls, timeout=CLOSE_GRACE_S)
        for task in calls:
            task.cancel()
        await self.journal.close()
        await self.broadcast.close()

    def left_over(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that still run."""
        return [task for task in self.machine.tasks if not task.done()]

    def _drop_calls(self) -> None:
        for reply in list(self._calls):
            if not reply.done():
                reply.set_exception(ConnectionLostError())


def _pass_on(reply: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    if task.cancelled():
        if not reply.done():
            reply.set_exception(ConnectionLostError())
        return
    error = task.exception()
    if reply.done():
        return
    if error is not None:
        reply.set_exception(error)
    else:
        reply.set_result(task.result())
