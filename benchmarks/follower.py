"""A client that sends messages on one socket, one after the other, and follows each run to its end."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from benchmarks.socket_client import SocketClient
from benchmarks.workload import PIECE_CHARACTERS, Script, Stamp, stamp_of

RUN_TIMEOUT_S: Final = 60.0

_PIECE: Final = b'{"type":"partial_result"'
_TEXT: Final = b'"text":"'
_BEFORE_WORK: Final = frozenset({"agent_started", "agent_progress"})
_WORK: Final = frozenset({"agent_thinking", "tool_executing", "tool_completed", "partial_result", "final_response"})

OnPiece = Callable[[Stamp, int], None]


class RunFailedError(Exception):
    """A run did not end well, or not with all of its events."""


class Frame(msgspec.Struct):
    """What of a frame matters here."""

    type: str
    run_id: str = ""
    seq: int = 0
    payload: msgspec.Raw = msgspec.Raw()


@dataclass(slots=True)
class Timings:
    """When a run's message was sent, and how long until what followed, in nanoseconds; 0: it never came."""

    sent_ns: int
    run_id: str = ""
    events: int = 0
    ack_ns: int = 0
    first_event_ns: int = 0
    worker_event_ns: int = 0
    end_ns: int = 0


class Follower:
    """One socket. `events` counts over all its runs; `on_piece` gets the stamp of each piece, if it is set."""

    def __init__(self, port: int, token: str) -> None:
        self.events = 0
        self.on_piece: OnPiece | None = None
        self._port = port
        self._token = token
        self._client: SocketClient | None = None
        self._script = Script()
        self._after_seq = 0
        self._timings = Timings(0)
        self._done: asyncio.Future[Timings] | None = None
        self._ready = asyncio.Event()
        self._error: Exception | None = None

    async def connect(self) -> None:
        """Connect, and sign in if there is a token."""
        self._client = await SocketClient.connect(self._port, self._token, self._on_text, self._on_end)
        if self._token:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                await self._ready.wait()
            if self._error is not None:
                raise self._error

    async def run(self, script: Script) -> Timings:
        """Send a message and return when its run has ended. Raises `RunFailedError`."""
        payload = {"content": script.content, "message_id": str(uuid.uuid4())}
        return await self._follow(script, 0, {"type": "user_message", "payload": payload})

    async def resume(self, script: Script, run_id: str) -> Timings:
        """Follow a run of this user from its beginning."""
        return await self._follow(script, 0, {"type": "resume", "payload": {"run_id": run_id, "after_seq": 0}})

    def close(self) -> None:
        """Close the socket."""
        if self._client is not None:
            self._client.close()

    async def _follow(self, script: Script, after_seq: int, request: dict[str, object]) -> Timings:
        if self._error is not None or self._client is None:
            raise self._error or RunFailedError("not connected")
        self._script, self._after_seq = script, after_seq
        self._done = asyncio.get_running_loop().create_future()
        data = msgspec.json.encode(request)
        self._timings = Timings(time.monotonic_ns())
        self._client.send(data)
        async with asyncio.timeout(RUN_TIMEOUT_S):
            return await self._done

    def _on_text(self, data: bytes, now_ns: int) -> None:
        if data.startswith(_PIECE):
            self._count(now_ns, is_work=True)
            if self.on_piece is not None:
                start = data.find(_TEXT) + len(_TEXT)
                self.on_piece(stamp_of(data[start : start + PIECE_CHARACTERS]), now_ns)
            return
        self._on_frame(msgspec.json.decode(data, type=Frame), now_ns)

    def _on_frame(self, frame: Frame, now_ns: int) -> None:
        timings = self._timings
        match frame.type:
            case "ack":
                timings.ack_ns = now_ns - timings.sent_ns
            case "connection_established":
                self._ready.set()
            case "agent_completed":
                self._count(now_ns, is_work=False)
                self._complete(frame, now_ns)
            case "agent_error" | "error":
                self._fail(RunFailedError(f"{frame.type}: {bytes(frame.payload).decode()}"))
            case _ if frame.type in _BEFORE_WORK or frame.type in _WORK:
                timings.run_id = frame.run_id
                self._count(now_ns, is_work=frame.type in _WORK)
            case _:
                pass

    def _count(self, now_ns: int, *, is_work: bool) -> None:
        timings = self._timings
        self.events += 1
        timings.events += 1
        if not timings.first_event_ns:
            timings.first_event_ns = now_ns - timings.sent_ns
        if is_work and not timings.worker_event_ns:
            timings.worker_event_ns = now_ns - timings.sent_ns

    def _complete(self, frame: Frame, now_ns: int) -> None:
        timings = self._timings
        timings.end_ns = now_ns - timings.sent_ns
        # The floor's events have no seq. The product's last one says how many there are, its final response included.
        wanted = frame.seq - self._after_seq if frame.seq else self._script.events
        if timings.events != wanted or wanted < self._script.events:
            text = f"{timings.events} events arrived of {wanted}; the script has {self._script.events}"
            self._fail(RunFailedError(text))
        elif self._done is not None and not self._done.done():
            self._done.set_result(timings)

    def _on_end(self, error: Exception) -> None:
        self._ready.set()
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._error = error
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
