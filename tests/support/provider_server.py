"""A provider over real HTTP that says what a test scripts, also what no proper server would say."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from types import TracebackType
from typing import Final, Protocol, Self, TypeAlias

from agent_service.llm.providers import Account


class Act(Enum):
    """What a server may do in the middle of an answer."""

    STALL = auto()
    """Say nothing more until the peer has gone."""
    CUT = auto()
    """Break the connection off."""
    END = auto()
    """End the answer in good order, although it is not finished."""


Piece: TypeAlias = bytes | Act


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: sent piece by piece, chunked."""

    pieces: Sequence[Piece]
    status: int = 200
    media_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came. `headers` are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, object]


Script: TypeAlias = Sequence[Reply] | Callable[[Asked], Reply]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as a test writes it."""

    name: str
    args: str = "{}"
    call_id: str = "c1"


class Dialect(Protocol):
    """A provider's protocol: `answer` and what else a test wants said in it."""

    provider: str
    model: str
    """As the settings name it; its price is in the catalogue."""

    def account(self, url: str) -> Account:
        """Return the account with the server at this address."""
        ...

    def answer(self, *pieces: str, calls: Sequence[Call] = (), thought: str = "", end: Piece | None = None) -> Reply:
        """Return an answer of 1,000 input and 500 output tokens; calls come in pieces.

        `end` comes after the first piece of text, in place of the rest.
        """
        ...

    def refusal(self, *pieces: str) -> Reply:
        """Return an answer that was filtered after these pieces."""
        ...

    def cut(self, *pieces: str) -> Reply:
        """Return an answer that used up its output tokens after these pieces."""
        ...

    def failure(self, status: int, **headers: str) -> Reply:
        """Return an error that quotes a secret; `_` in a header's name stands for `-`."""
        ...

    def too_long(self) -> Reply:
        """Return the error for a request that does not fit into the model's context."""
        ...


SECRET: Final = "sk-secret-of-the-account"
"""Stands in every error that a provider sends."""

NO_SCRIPT: Final = Reply([b'{"error": {"message": "nothing is scripted"}}'], 400, "application/json")


class ProviderServer:
    """Use as an async context manager. Answers in the script's order, or with what the script returns."""

    def __init__(self, script: Script) -> None:
        self._script = script if callable(script) else None
        self._replies = [] if callable(script) else list(script)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[Asked] = []
        self.stalled = asyncio.Event()
        self.left = asyncio.Event()
        """Set when a peer goes away while an answer stalls."""
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                if not await self._reply(self._next(asked), reader, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def _next(self, asked: Asked) -> Reply:
        if self._script is not None:
            return self._script(asked)
        return self._replies.pop(0) if self._replies else NO_SCRIPT

    async def _reply(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send the answer; return whether the connection goes on."""
        head = {"content-type": reply.media_type, "transfer-encoding": "chunked", **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase if reply.status < 520 else 'Odd'}"]
        writer.write("\r\n".join([*lines, *(f"{name}: {value}" for name, value in head.items()), "", ""]).encode())
        for piece in reply.pieces:
            if piece is Act.STALL:
                await writer.drain()
                self.stalled.set()
                await reader.read()
                self.left.set()
                return False
            if piece is Act.CUT:
                await writer.drain()
                writer.transport.abort()
                return False
            if piece is Act.END:
                break
            assert isinstance(piece, bytes)
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    """Return the next request of a connection, or None when there is no more."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Asked(head[0].split()[1], headers, json.loads(body or b"{}"))
    return None
