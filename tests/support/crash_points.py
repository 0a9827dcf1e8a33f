"""Death at a commit point: storage that kills its own process before, within or after a chosen transaction.

The test writes a plan as a file; the process looks for it at every write, counts what the plan names, leaves a note,
and is gone by SIGKILL. "Before" is before storage hears of the write; "inside" between its statements and its COMMIT;
"after" when the database has committed and nobody was told.
"""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Final, NoReturn, cast
from unittest.mock import patch

import msgspec
from sqlalchemy import make_url

from agent_service.api.wire import ProtoCodec
from agent_service.engine.events import AgentProgress, Body, PartialResult, ProgressStage, ToolCompleted, ToolExecuting
from storage.interfaces import ActionPlans, Corpora, EventLog, Files, Runs, Storage, Threads
from storage.opening import open_storage
from storage.records import Append, NewRun
from tests.support.faulty_commit import BIND, Fault, FaultPlan, faulty_postgres

WRITES: Final = frozenset(
    {"accept", "append", "beat", "claim", "claim_run", "positions", "release", "release_all", "request_cancel"}
)


class Point(StrEnum):
    """What a transaction saves."""

    ACCEPT = "accept"
    CLAIM = "claim"
    TOOL_START = "tool_start"
    TOOL_END = "tool_end"
    TEXT = "text"
    CHECKPOINT = "checkpoint"
    RESUME = "resume"
    CANCEL = "cancel"
    ENDING = "ending"


class Side(StrEnum):
    """Where in the transaction the process dies."""

    BEFORE = "before"
    INSIDE = "inside"
    AFTER = "after"


class Plan(msgspec.Struct, frozen=True):
    """Die at the `occurrence`-th transaction that saves this.

    `detail` narrows a point: the tool's name, the status of the ending, how the user's id begins who sends or cancels.
    Empty means any.
    """

    point: Point
    side: Side
    detail: str = ""
    occurrence: int = 1

    @property
    def place(self) -> str:
        """The point with its detail."""
        return f"{self.point}:{self.detail}" if self.detail else str(self.point)

    def __str__(self) -> str:
        return f"{self.side} {self.place} {self.occurrence}"


class Death(msgspec.Struct, frozen=True):
    """What a process leaves behind.

    `side` is where it really died: a write that needs no COMMIT of its own has no inside. `time_s` is the clock of
    events, `monotonic_s` that of waiting; both are the same for all processes of the machine.
    """

    plan: Plan
    side: Side
    time_s: float
    monotonic_s: float


class CrashFiles:
    """Where the plan of one service lies, and the notes of its deaths."""

    def __init__(self, folder: Path) -> None:
        self._plan = folder / "crash.plan"
        self._notes = folder / "crash.notes"

    def arm(self, plan: Plan) -> None:
        """Let the process die there, or the next one if none is alive."""
        draft = self._plan.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(plan))
        draft.rename(self._plan)

    def disarm(self) -> bool:
        """Take the plan back; tell whether there was one."""
        armed = self._plan.exists()
        self._plan.unlink(missing_ok=True)
        return armed

    def armed(self) -> Plan | None:
        """Return the plan, if there is one."""
        try:
            return msgspec.json.decode(self._plan.read_bytes(), type=Plan)
        except FileNotFoundError:
            return None

    def deaths(self) -> Sequence[Death]:
        """Return the notes, oldest first."""
        if not self._notes.exists():
            return ()
        return [msgspec.json.decode(line, type=Death) for line in self._notes.read_bytes().splitlines()]

    def note(self, death: Death) -> None:
        """Leave a note, and forget the plan."""
        append_line(self._notes, msgspec.json.encode(death))
        self._plan.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Append a line as one write, durably."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Executioner:
    """Carries the plan out."""

    def __init__(self, files: CrashFiles) -> None:
        self._files = files
        self._counted: tuple[Plan, int] | None = None
        self._committing: Plan | None = None
        self._one_by_one = asyncio.Lock()

    async def through(
        self, saves: Callable[[Plan], Awaitable[bool]], write: Callable[[], Awaitable[object]], *, idle: object
    ) -> object:
        """Do a write, and die at it if the plan says so. `idle` is the result of a write that saved nothing."""
        plan = self._files.armed()
        if plan is None:
            self._counted = None
            return await write()
        if plan.side is not Side.INSIDE:
            return await self._execute(plan, saves, write, idle)
        async with self._one_by_one:  # so that the next COMMIT is that of this write
            return await self._execute(plan, saves, write, idle)

    async def _execute(
        self, plan: Plan, saves: Callable[[Plan], Awaitable[bool]], write: Callable[[], Awaitable[object]], idle: object
    ) -> object:
        if not await saves(plan):
            return await write()
        known, count = self._counted or (plan, 0)
        count = count + 1 if known == plan else 1
        self._counted = plan, count
        if count != plan.occurrence:
            return await write()
        if plan.side is Side.BEFORE:
            self._die(plan, Side.BEFORE)
        if plan.side is Side.INSIDE:
            self._committing = plan
        result = await write()
        self._committing = None
        if result != idle:
            self._die(plan, Side.AFTER)
        self._counted = plan, count - 1
        return result

    @property
    def is_at_a_single_statement(self) -> bool:
        """True while the write under way is one that PostgreSQL commits by itself: an append."""
        plan = self._committing
        return plan is not None and plan.point not in {Point.ACCEPT, Point.CLAIM, Point.CANCEL}

    def committing(self) -> None:
        """A COMMIT is about to be carried out. Any thread may say so."""
        if self._committing is not None:
            self._die(self._committing, Side.INSIDE)

    def _die(self, plan: Plan, side: Side) -> NoReturn:
        self._files.note(Death(plan, side, time.time(), time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable: nobody survives SIGKILL")


class CrashingStorage:
    """Implements `storage.interfaces.Storage` over another one, with an executioner at every write."""

    def __init__(self, inner: Storage, executioner: Executioner, watching: AsyncExitStack) -> None:
        self._inner = inner
        self._watching = watching
        line = _Line(inner, executioner)
        self._events = cast("EventLog", line.to(inner.events))
        self._runs = cast("Runs", line.to(inner.runs))

    @property
    def events(self) -> EventLog:
        return self._events

    @property
    def runs(self) -> Runs:
        return self._runs

    @property
    def threads(self) -> Threads:
        return self._inner.threads

    @property
    def files(self) -> Files:
        return self._inner.files

    @property
    def corpora(self) -> Corpora:
        return self._inner.corpora

    @property
    def plans(self) -> ActionPlans:
        return self._inner.plans

    async def ping(self) -> None:
        await self._inner.ping()

    async def close(self) -> None:
        async with self._watching:
            await self._inner.close()


class _Line:
    """Hands every call on; writes go past the executioner."""

    def __init__(self, storage: Storage, executioner: Executioner, part: object = None) -> None:
        self._storage = storage
        self._executioner = executioner
        self._part = part

    def to(self, part: object) -> "_Line":
        """Return a line to this part of the storage."""
        return _Line(self._storage, self._executioner, part)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method: Callable[..., Awaitable[object]] = getattr(self._part, name)
        if name not in WRITES:
            return method

        async def call(*args: object, **options: object) -> object:
            async def saves(plan: Plan) -> bool:
                return await self._saves(plan, name, args)

            return await self._executioner.through(saves, lambda: method(*args, **options), idle=())

        return call

    async def _saves(self, plan: Plan, name: str, args: tuple[object, ...]) -> bool:
        match plan.point:
            case Point.ACCEPT:
                return name == "accept" and cast("NewRun", args[0]).user_id.startswith(plan.detail)
            case Point.CLAIM:
                # An idle worker looks for work, too.
                return name == "claim" and await self._storage.runs.count_queued() > 0
            case Point.CANCEL:
                return name == "request_cancel" and str(args[0]).startswith(plan.detail)
            case _:
                return name == "append" and any(saved_by(append, plan) for append in cast("Sequence[Append]", args[0]))


def saved_by(append: Append, plan: Plan) -> bool:
    """Tell whether an append saves what the plan names."""
    if plan.point is Point.CHECKPOINT:
        return append.checkpoint is not None
    if plan.point is Point.ENDING:
        return append.ending is not None and plan.detail in {"", append.ending.status}
    codec = ProtoCodec()
    return any(_is_named(codec.decode(event.data).body, plan) for event in append.events)


def _is_named(body: Body, plan: Plan) -> bool:
    match plan.point, body:
        case (Point.TOOL_START, ToolExecuting(tool_name=name)) | (Point.TOOL_END, ToolCompleted(tool_name=name)):
            return plan.detail in {"", name}
        case (Point.TEXT, PartialResult()) | (Point.RESUME, AgentProgress(stage=ProgressStage.RESUMED)):
            return True
        case _:
            return False


async def open_crashing_storage(database_url: str, data_dir: Path) -> CrashingStorage:
    """Open what the product opens, with an executioner whose files lie in the data directory."""
    executioner = Executioner(CrashFiles(data_dir))
    async with AsyncExitStack() as watching:
        if database_url.startswith("postgresql"):
            if make_url(database_url).host:  # else a Unix socket, before which there is no proxy
                database_url = await watching.enter_async_context(
                    faulty_postgres(database_url, CommitWatch(executioner))
                )
        else:
            watching.enter_context(_watched_sqlite(executioner))
        inner = await open_storage(database_url, data_dir)
        return CrashingStorage(inner, executioner, watching.pop_all())
    raise AssertionError("unreachable: an exit stack swallows nothing")


class CommitWatch(FaultPlan):
    """A plan of the PostgreSQL proxy that lets every COMMIT pass, if the process lives on."""

    def __init__(self, executioner: Executioner) -> None:
        super().__init__()
        self._executioner = executioner

    def commits(self, data: bytes) -> bool:
        return data.startswith(BIND) if self._executioner.is_at_a_single_statement else super().commits(data)

    def take(self) -> Fault:
        self._executioner.committing()
        return Fault.NONE


def _watched_sqlite(executioner: Executioner) -> ExitStack:
    """See every COMMIT of every SQLite connection that is opened from now on, whoever opens it."""
    connect = sqlite3.connect

    def traced(statement: str) -> None:
        if statement.lstrip().upper().startswith("COMMIT"):
            executioner.committing()

    def watched(*args: object, **options: object) -> sqlite3.Connection:
        connection = cast("Callable[..., sqlite3.Connection]", connect)(*args, **options)
        connection.set_trace_callback(traced)
        return connection

    with ExitStack() as stack:
        stack.enter_context(patch.object(sqlite3, "connect", watched))
        return stack.pop_all()
