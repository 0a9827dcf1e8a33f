"""The transport under one WebSocket: uvicorn's protocol, with what ASGI does not offer.

Protocol pings whose pongs are seen, a close that does not wait behind a full buffer, an abort for a peer that is
stuck, `TCP_USER_TIMEOUT`. uvicorn's own pings must be off (`ws_ping_interval=None`): they close with 1011, and never
free a peer that does not read.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from struct import Struct
from typing import Final, Protocol, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode as ProtocolCode
from websockets.frames import Frame
from websockets.protocol import State

from ws_bridge.close_codes import CloseCode

LINE_KEY: Final = "line"
"""Where the ASGI scope's `state` holds the `Line` of a WebSocket."""
USER_TIMEOUT_MS: Final = 60_000
"""How long sent data may stay unacknowledged before the kernel breaks the connection, in milliseconds."""
CLOSE_GRACE_S: Final = 3.0
"""How long a peer may take to answer a close, in seconds; then the connection is aborted."""
MAX_CLOSE_REASON_BYTES: Final = 123
MAX_FRAGMENTS: Final = 1024
"""Frames of one message; one more closes with 1009. Empty ones count too: their bytes never reach a limit."""
UNREADABLE_UPGRADE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
_PING_BYTES: Final = 8
_FINAL_TEXT: Final = 0x81
_SIZE_16: Final = 126
"""In place of a size: it follows in 16 bits."""
_SIZE_64: Final = 127
_SIZE_LIMIT_16: Final = 1 << 16
_HEAD_16: Final = Struct("!BBH")
_HEAD_64: Final = Struct("!BBQ")

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Whom a line tells what its peer does. None of the methods waits."""

    def on_frame(self, text: str | None) -> None:
        """A data frame came; None for a binary one."""
        ...

    def on_pong(self, number: int) -> None:
        """A ping was answered."""
        ...

    def on_writable(self) -> None:
        """The peer reads again: `Line.writable` is true."""
        ...

    def on_gone(self) -> None:
        """The peer is gone, or we have closed. May be said more than once."""
        ...


class Line:
    """One WebSocket connection. After `close` or `abort` nothing is sent any more.

    `writable` is false while the peer does not read what was sent.
    """

    __slots__ = ("_protocol", "writable")

    def __init__(self, protocol: "LineProtocol") -> None:
        self._protocol = protocol
        self.writable = True

    @property
    def address(self) -> str:
        """The peer's address, without the port."""
        return self._protocol.client[0] if self._protocol.client else ""

    def listen(self, listener: Listener) -> None:
        """Tell everything to a listener from now on, beginning with what has come since the upgrade."""
        self._protocol.listen(listener)

    def send(self, frames: Sequence[bytes]) -> None:
        """Send text frames with one write, or drop them if the peer is gone. Ask for `writable` first."""
        protocol = self._protocol
        if protocol.conn.state is State.OPEN and not protocol.transport.is_closing():
            protocol.transport.write(text_frames(frames))

    def ping(self, number: int) -> None:
        """Send a ping of the WebSocket protocol; `on_pong` gets the number of those that are answered."""
        if self._ended():
            return
        with suppress(InvalidState):
            self._protocol.conn.send_ping(number.to_bytes(_PING_BYTES))
            self._flush()

    def close(self, code: CloseCode, reason: str) -> None:
        """Send a close frame behind what is already in the buffer; abort if the peer does not answer it in time."""
        protocol = self._protocol
        if self._ended():
            return
        if code is CloseCode.HEARTBEAT_LOST and not self.writable:
            self.abort()  # a peer that neither answers nor reads would not see a close either
            return
        with suppress(InvalidState):
            protocol.conn.send_close(code, reason.encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore"))
            self._flush()
        protocol.close_sent = True
        protocol.close_timer = protocol.loop.call_later(CLOSE_GRACE_S, protocol.transport.abort)
        protocol.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    def abort(self) -> None:
        """Break the connection now."""
        self._protocol.transport.abort()

    def _ended(self) -> bool:
        protocol = self._protocol
        return protocol.disconnected or protocol.close_sent or protocol.transport.is_closing()

    def _flush(self) -> None:
        self._protocol.transport.write(b"".join(self._protocol.conn.data_to_send()))


class LineProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, which puts its `Line` into the scope's state.

    The application's part ends with the handshake if it has set a listener by then: no task, no queue and nothing of
    the request is kept for an open socket.
    """

    line: Line
    listener: Listener | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.line = Line(self)
        peer = transport.get_extra_info("socket")
        with suppress(OSError, AttributeError):  # not every platform and every transport has it
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None and not self.transport.is_closing():
            # uvicorn leaves the client waiting where the upgrade request cannot be read, as with a header over 8 KiB.
            self.handshake_complete = True
            self.transport.write(UNREADABLE_UPGRADE)
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.line.writable = False

    def resume_writing(self) -> None:
        super().resume_writing()
        self.line.writable = True
        if self.listener is not None:
            self.listener.on_writable()

    def listen(self, listener: Listener) -> None:
        """Give the listener what the application has not taken, and what comes from now on."""
        waiting, self.listener = self.queue, listener
        self.queue = cast("asyncio.Queue[ASGIReceiveEvent]", _Told(listener))
        while not waiting.empty():
            self.queue.put_nowait(waiting.get_nowait())
        self._go_on_reading()

    async def run_asgi(self) -> None:
        self.scope["state"][LINE_KEY] = self.line
        self.scope["query_string"] = b""  # nothing in it is ours, and logs must not repeat what a client put there
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass  # before it was upgraded
        except Exception:
            logger.exception("An upgrade failed.")
            self.transport.close()
        if self.listener is None:
            self.send_500_response()  # unless there was an answer
            self.transport.close()
        self.request.headers.clear()  # the library's parser keeps the request for as long as the socket is open
        del self.scope, self.request, self.response

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # refused in order: uvicorn would log an error about it

    def send_receive_event_to_app(self) -> None:
        super().send_receive_event_to_app()
        if self.listener is not None:
            self._go_on_reading()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.frames = []
            self.conn.fail(ProtocolCode.MESSAGE_TOO_BIG, f"at most {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        if self.line.writable:
            super().handle_ping()
        else:
            self.conn.data_to_send()  # dropped: pongs for a peer that does not read would pile up without a bound

    def handle_pong(self, event: Frame) -> None:
        data = bytes(event.data)
        if len(data) == _PING_BYTES and self.listener is not None:
            self.listener.on_pong(int.from_bytes(data))

    def _go_on_reading(self) -> None:
        """Undo uvicorn's pause after a frame: a listener has taken it already."""
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()


class _Told:
    """Stands where uvicorn has the application's queue: what is put into it is told to the listener at once."""

    __slots__ = ("_listener",)

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def put_nowait(self, message: ASGIReceiveEvent) -> None:
        if message["type"] == "websocket.receive":
            self._listener.on_frame(message.get("text"))
        elif message["type"] == "websocket.disconnect":
            self._listener.on_gone()


def text_frames(texts: Sequence[bytes]) -> bytes:
    """Return whole text frames of a server: no mask, no extension, no fragments."""
    parts = []
    for text in texts:
        size = len(text)
        if size < _SIZE_16:
            parts.append(bytes((_FINAL_TEXT, size)))
        elif size < _SIZE_LIMIT_16:
            parts.append(_HEAD_16.pack(_FINAL_TEXT, _SIZE_16, size))
        else:
            parts.append(_HEAD_64.pack(_FINAL_TEXT, _SIZE_64, size))
        parts.append(text)
    return b"".join(parts)
