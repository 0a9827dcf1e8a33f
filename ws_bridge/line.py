"""The transport under one WebSocket: uvicorn's protocol, with what ASGI does not offer.

Protocol pings whose pongs are seen, a close that does not wait behind a full buffer, an abort for a peer that is
stuck, `TCP_USER_TIMEOUT`. uvicorn's own pings must be off (`ws_ping_interval=None`): they close with 1011, and never
free a peer that does not read.
"""

import socket
from asyncio import BaseTransport
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode as ProtocolCode
from websockets.frames import Frame

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


class LineLostError(Exception):
    """The peer is gone."""


class Line:
    """One WebSocket connection. After `close` or `abort` nothing is sent any more."""

    def __init__(self, protocol: "LineProtocol") -> None:
        self._protocol = protocol
        self.on_pong: Callable[[int], None] = _ignore

    @property
    def address(self) -> str:
        """The peer's address, without the port."""
        return self._protocol.client[0] if self._protocol.client else ""

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send text frames with one write. Waits while the peer does not read.

        Raises:
            LineLostError: the peer is gone, or we have closed.
        """
        protocol = self._protocol
        await protocol.writable.wait()
        if self._ended():
            raise LineLostError
        try:
            for data in frames:
                protocol.conn.send_text(data)
        except InvalidState as error:
            raise LineLostError from error
        self._flush()

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
        if code is CloseCode.HEARTBEAT_LOST and not protocol.writable.is_set():
            self.abort()  # a peer that neither answers nor reads would not see a close either
            return
        with suppress(InvalidState):
            protocol.conn.send_close(code, reason.encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore"))
            self._flush()
        protocol.close_sent = True
        protocol.close_timer = protocol.loop.call_later(CLOSE_GRACE_S, protocol.transport.abort)
        protocol.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if protocol.read_paused:
            protocol.read_paused = False
            protocol.transport.resume_reading()  # or the peer's close would never be seen

    def abort(self) -> None:
        """Break the connection now."""
        self._protocol.transport.abort()

    def _ended(self) -> bool:
        protocol = self._protocol
        return protocol.disconnected or protocol.close_sent or protocol.transport.is_closing()

    def _flush(self) -> None:
        self._protocol.transport.write(b"".join(self._protocol.conn.data_to_send()))


class LineProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, which puts its `Line` into the scope's state."""

    line: Line

    def connection_made(self, transport: BaseTransport) -> None:
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

    async def run_asgi(self) -> None:
        self.scope["state"][LINE_KEY] = self.line
        self.scope["query_string"] = b""  # nothing in it is ours, and logs must not repeat what a client put there
        await super().run_asgi()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # refused in order: uvicorn would log an error about it

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.frames = []
            self.conn.fail(ProtocolCode.MESSAGE_TOO_BIG, f"at most {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # dropped: pongs for a peer that does not read would pile up without a bound

    def handle_pong(self, event: Frame) -> None:
        data = bytes(event.data)
        if len(data) == _PING_BYTES:
            self.line.on_pong(int.from_bytes(data))


def _ignore(number: int) -> None:
    """Drop a pong that comes before somebody listens."""
