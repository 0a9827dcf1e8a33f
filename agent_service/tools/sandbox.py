"""DuckDB in child processes: what a dataset holds can hurt the child, never the service.

A `Sandbox` keeps at most `max_children` processes. Each serves one dataset at a time in a fresh, locked, in-memory
database that can read that one file and nothing else. A child that is late, silent or cancelled is killed, and the
next call gets another. Who comes while all are busy waits in line, but not for long: see `SandboxLimits.wait_ms`.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from agent_service.engine.tool import ToolError
from agent_service.tools.sandbox_child.frames import LENGTH, MAX_FRAME_BYTES, Json, Message

Cell: TypeAlias = Json
"""A value of a result."""

_CHILD = Path(__file__).with_name("sandbox_child")
_OWN_MAX_ROWS = 10_000
_OWN_MAX_BYTES = 4 * 1024 * 1024

_ADVICE = {
    "timeout": "The analysis of {name} took longer than {seconds:g} s and was stopped. Ask for a smaller part of it.",
    "memory": "The analysis of {name} needs more than the {memory} MiB it may use. Ask for a smaller part of it.",
    "crash": "The process that analysed {name} ended unexpectedly. Try again, with a smaller part of it.",
}


class SandboxError(ToolError):
    """It could not be done. `kind`: file, refused, sql, memory, timeout, crash, or busy (no child was free in time)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Bounds of all children together and of each.

    `wait_ms`: how long a call waits for a free child. It is a part of the tool's own time, and must leave enough of it
    to work in: better a call that is told to come again than one that gets a child when it is too late.
    `idle_ms`: how long a child without work is kept. `close_ms`: how long it may take to forget a file.
    `grace_ms`: how long after its time-out it may still answer. `max_written_bytes`: the largest file that a child may
    write, which only `Sandbox.scratch` lets it; children that read what people bring write none.
    """

    max_children: int = 2
    memory_mib: int = 768
    threads: int = 2
    max_unpacked_bytes: int = 2 * 1024**3
    wait_ms: int = 12_000
    idle_ms: int = 120_000
    close_ms: int = 15_000
    grace_ms: int = 1_000
    max_written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RawColumn:
    """A column of the view `raw`: its unique name and DuckDB type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What the file is. `kind`: csv, json, jsonl, parquet; `header` is false when column names were made up."""

    kind: str
    compression: str
    encoding: str
    delimiter: str
    header: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """A result. `more` is `rows` or `bytes` when a bound ended it, `cut_cells` counts shortened texts."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    more: str = ""
    cut_cells: int = 0


class Session:
    """One dataset, opened in one child as the view `raw`."""

    def __init__(self, child: "_Child", name: str, file_format: FileFormat, columns: tuple[RawColumn, ...]) -> None:
        self._child = child
        self.name = name
        self.format = file_format
        self.columns = columns

    async def run(self, sql: str, *, timeout_ms: int = 20_000) -> Rows:
        """Execute SQL of our own. Raises `SandboxError`, also when the result is larger than the bounds."""
        rows = _rows(await self._child.ask(_request("run", sql, timeout_ms, _OWN_MAX_ROWS, _OWN_MAX_BYTES), self.name))
        if rows.more:
            raise SandboxError(
                "memory", f"{self.name} has more groups than can be worked with. Ask for a smaller part."
            )
        return rows

    async def select(self, sql: str, *, max_rows: int, max_bytes: int, timeout_ms: int) -> Rows:
        """Execute a user's SQL: exactly one SELECT that reads nothing but `data`. Raises `SandboxError`."""
        return _rows(await self._child.ask(_request("select", sql, timeout_ms, max_rows, max_bytes), self.name))


class Sandbox:
    """The pool of children. Make one per service, close it at the end."""

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self._limits = limits or SandboxLimits()
        self._slots = asyncio.Semaphore(self._limits.max_children)
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def is_busy(self) -> bool:
        """True when all children are at work, so that the next call has to wait."""
        return self._slots.locked()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of all children that have not been ended, busy or not."""
        return tuple(child.pid for child in self._children)

    async def warm(self) -> None:
        """Start one child, so that the first call need not wait for it."""
        if not self._idle:
            self._keep(await self._start())

    async def close(self) -> None:
        """End all children, busy ones too, and wait until they are gone."""
        self._closed = True
        for child in tuple(self._children):
            self._end(child)
        if self._ending:
            await asyncio.wait(self._ending)

    @asynccontextmanager
    async def session(
        self, path: Path, name: str, *, exact_types: bool = False, timeout_ms: int = 20_000
    ) -> AsyncIterator[Session]:
        """Open the file; `name` stands for it in messages. Waits `wait_ms` at most. Raises `SandboxError`.

        `exact_types`: the columns of `raw` have types that fit every row of a CSV; otherwise they are text.
        """
        async with self._slot(name):
            child, opened = await self._open(path, name, exact_types=exact_types, timeout_ms=timeout_ms)
            try:
                yield _session(child, name, opened)
            except asyncio.CancelledError:
                child.kill()
                raise
            finally:
                await self._release(child, name)

    @asynccontextmanager
    async def scratch(self, target: Path, name: str) -> AsyncIterator[Session]:
        """Begin with an empty database that can write this one file; `name` stands for it in messages.

        Waits `wait_ms` at most. Raises `SandboxError`.
        """
        async with self._slot(name):
            child, _ = await self._open(target, name, operation="scratch")
            try:
                yield Session(child, name, FileFormat("parquet", "", "", "", header=True), ())
            except asyncio.CancelledError:
                child.kill()
                raise
            finally:
                await self._release(child, name)

    @asynccontextmanager
    async def _slot(self, name: str) -> AsyncIterator[None]:
        """Hold one of the places for children: first come, first served."""
        try:
            async with asyncio.timeout(self._limits.wait_ms / 1000):
                await self._slots.acquire()
        except TimeoutError:
            waited = f"{self._limits.wait_ms / 1000:g} s"
            text = (
                f"Other analyses are at work, and none has ended within {waited}: {name} was not looked at. Try again."
            )
            raise SandboxError("busy", text) from None
        try:
            yield
        finally:
            self._slots.release()

    async def _release(self, child: "_Child", name: str) -> None:
        try:
            if child.healthy:
                with suppress(SandboxError):
                    await child.ask(_request("close", "", self._limits.close_ms, 0, 0), name)
        finally:
            # Also when the caller is cancelled meanwhile: else nobody would wait for the process, or close its pipes.
            self._put_back(child)

    async def _open(
        self, path: Path, name: str, *, exact_types: bool = False, timeout_ms: int = 20_000, operation: str = "open"
    ) -> tuple["_Child", Message]:
        request = _request(operation, "", timeout_ms, 0, 0)
        request |= {
            "path": _absolute(path),
            "name": name,
            "exact_types": exact_types,
            "memory_mib": self._limits.memory_mib,
            "threads": self._limits.threads,
            "max_unpacked_bytes": self._limits.max_unpacked_bytes,
        }
        while True:
            reused = self._take()
            child = reused or await self._start()
            try:
                return child, await child.ask(request, name)
            except SandboxError as error:
                # An idle child may have been ended by the system meanwhile.
                if reused is None or error.kind != "crash":
                    raise
            finally:
                if not child.open:
                    self._put_back(child)

    async def _start(self) -> "_Child":
        child = await _Child.start(self._limits)
        self._children.add(child)
        return child

    def _take(self) -> "_Child | None":
        while self._idle:
            child = self._idle.pop()
            if child.wake():
                return child
            self._end(child)
        return None

    def _put_back(self, child: "_Child") -> None:
        if child.healthy and not self._closed:
            self._keep(child)
        else:
            self._end(child)

    def _keep(self, child: "_Child") -> None:
        self._idle.append(child)
        child.sleep(asyncio.get_running_loop().call_later(self._limits.idle_ms / 1000, self._end, child))

    def _end(self, child: "_Child") -> None:
        if child in self._idle:
            self._idle.remove(child)
        self._children.discard(child)
        task = asyncio.get_running_loop().create_task(child.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _Child:
    """One process and the protocol with it. `healthy`: it owes no answer. `open`: it holds a file."""

    def __init__(self, process: asyncio.subprocess.Process, limits: SandboxLimits) -> None:
        self._process = process
        self._limits = limits
        self._idle_timer: asyncio.TimerHandle | None = None
        self.healthy = True
        self.open = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @classmethod
    async def start(cls, limits: SandboxLimits) -> "_Child":
        """Start a process with an empty environment, which cannot tell what the service knows."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(_CHILD),
            str(limits.memory_mib),
            str(limits.max_written_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            cwd="/",
        )
        return cls(process, limits)

    async def ask(self, request: Message, name: str) -> Message:
        """Send a request and return its reply. Raises `SandboxError`; on anything unexpected the process is killed."""
        timeout_ms = int(str(request["timeout_ms"]))
        self.healthy = False
        try:
            async with asyncio.timeout((timeout_ms + self._limits.grace_ms) / 1000):
                reply = await self._exchange(request)
        except TimeoutError:
            raise self._failure("timeout", "", name, timeout_ms) from None
        except (OSError, EOFError, ValueError):
            raise self._failure("crash", "", name, timeout_ms) from None
        finally:
            # Also when the caller is cancelled: a child that owes an answer is of no more use.
            if not self.healthy:
                self.kill()
        error = reply.get("error")
        if isinstance(error, str):
            raise self._failure(error, str(reply.get("message", "")), name, timeout_ms)
        self.open = request["op"] != "close"
        return reply

    async def _exchange(self, request: Message) -> Message:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise EOFError
        data = json.dumps(request).encode()
        stdin.write(LENGTH.pack(len(data)) + data)
        await stdin.drain()
        (size,) = LENGTH.unpack(await stdout.readexactly(LENGTH.size))
        if size > MAX_FRAME_BYTES:
            raise ValueError("frame too large")
        reply = json.loads(await stdout.readexactly(size))
        self.healthy = True
        return reply if isinstance(reply, dict) else {}

    def _failure(self, kind: str, message: str, name: str, timeout_ms: int) -> SandboxError:
        advice = _ADVICE.get(kind, "{message}")
        text = advice.format(name=name, seconds=timeout_ms / 1000, memory=self._limits.memory_mib, message=message)
        return SandboxError(kind, text)

    def sleep(self, timer: asyncio.TimerHandle) -> None:
        """Be ended by this timer unless woken before."""
        self.open = False
        self._idle_timer = timer

    def wake(self) -> bool:
        """Stop the timer; return whether the process is still there."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        return self._process.returncode is None

    def kill(self) -> None:
        """End the process now."""
        self.healthy = False
        if self._process.returncode is None:
            self._process.kill()

    async def end(self) -> None:
        """Kill the process and wait until it is gone. It holds nothing worth saving."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


def _absolute(path: Path) -> str:
    return str(path.resolve())


def _request(op: str, sql: str, timeout_ms: int, max_rows: int, max_bytes: int) -> Message:
    return {"op": op, "sql": sql, "timeout_ms": timeout_ms, "max_rows": max_rows, "max_bytes": max_bytes}


def _rows(reply: Message) -> Rows:
    columns, types, rows = reply["columns"], reply["types"], reply["rows"]
    if not (isinstance(columns, list) and isinstance(types, list) and isinstance(rows, list)):
        raise SandboxError("crash", "The analysis process answered something unexpected. Try again.")
    return Rows(
        columns=tuple(map(str, columns)),
        types=tuple(map(str, types)),
        rows=[row for row in rows if isinstance(row, list)],
        more=str(reply["more"]),
        cut_cells=int(str(reply["cut_cells"])),
    )


def _session(child: _Child, name: str, opened: Message) -> Session:
    columns = opened["columns"]
    if not isinstance(columns, list):
        raise SandboxError("crash", "The analysis process answered something unexpected. Try again.")
    file_format = FileFormat(
        kind=str(opened["kind"]),
        compression=str(opened["compression"]),
        encoding=str(opened["encoding"]),
        delimiter=str(opened["delimiter"]),
        header=bool(opened["header"]),
    )
    raw = tuple(RawColumn(str(c["name"]), str(c["type"])) for c in columns if isinstance(c, dict))
    return Session(child, name, file_format, raw)
