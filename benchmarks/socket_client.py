"""A WebSocket client that costs next to nothing: the machine is there for what is measured, not for who measures."""

import asyncio
import secrets
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Final, cast

HOST: Final = "127.0.0.1"
CONNECT_TIMEOUT_S: Final = 10.0

_END_OF_HEAD: Final = b"\r\n\r\n"
_SWITCHED: Final = b"HTTP/1.1 101 "
_TEXT: Final = 0x1
_CLOSE: Final = 0x8
_PONG: Final = 0xA
_FINAL: Final = 0x80
_MASKED: Final = 0x80
_MASK: Final = bytes(4)
_SHORT: Final = 126
_LONG: Final = 127

OnText = Callable[[bytes, int], None]
OnEnd = Callable[[Exception], None]


class SocketEndedError(Exception):
    """The other side closed, or never opened."""


class SocketClient(asyncio.Protocol):
    """One socket. `on_text` gets each text frame and when it came (monotonic, ns), `on_end` why there are no more.

    Its mask is zeros: nobody listens in between whom a random one would protect.
    """

    def __init__(self, on_text: OnText, on_end: OnEnd) -> None:
        self._on_text = on_text
        self._on_end = on_end
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing = False

    @classmethod
    async def connect(cls, port: int, token: str, on_text: OnText, on_end: OnEnd) -> "SocketClient":
        """Return an open socket. Raises `SocketEndedError` and `TimeoutError`."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, client = await loop.create_connection(lambda: cls(on_text, on_end), HOST, port)
            await client.upgrade(port, token)
        return client

    def send(self, text: bytes) -> None:
        """Send a text frame."""
        self._write(_TEXT, text)

    def close(self) -> None:
        """Close, without a word to `on_end`."""
        self._closing = True
        if self._transport is not None and not self._transport.is_closing():
            self._write(_CLOSE, (1000).to_bytes(2))
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # what uvloop gives is one, and does not inherit it

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc or 'closed'}")

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        buffer = self._rest + data if self._rest else data
        if not self._opened.done():
            head, found, buffer = buffer.partition(_END_OF_HEAD)
            if not found:
                self._rest = head
                return
            if not head.startswith(_SWITCHED):
                self._end(f"the upgrade was refused: {head[:200].decode(errors='replace')}")
                return
            self._opened.set_result(None)
        self._rest = buffer[self._frames(buffer, now_ns) :]

    def _frames(self, buffer: bytes, now_ns: int) -> int:
        """Handle the whole frames in the buffer; return where the rest begins."""
        position, size = 0, len(buffer)
        while size - position >= 2:  # noqa: PLR2004 - the shortest head
            length, start = buffer[position + 1], position + 2
            if length == _SHORT:
                start += 2
                length = int.from_bytes(buffer[position + 2 : start])
            elif length == _LONG:
                start += 8
                length = int.from_bytes(buffer[position + 2 : start])
            if start + length > size:
                break
            first, body = buffer[position], buffer[start : start + length]
            position = start + length
            if first == _FINAL | _TEXT:
                self._on_text(body, now_ns)
            else:
                self._control(first, body)
        return position

    def _control(self, first: int, body: bytes) -> None:
        match first:
            case 0x89:  # _FINAL | _PING
                self._write(_PONG, body)
            case 0x88:  # _FINAL | _CLOSE
                self._end(f"closed with {int.from_bytes(body[:2])} {body[2:].decode(errors='replace')}")
            case _:
                self._end(f"a frame that begins with {first:#x}")

    async def upgrade(self, port: int, token: str) -> None:
        """Ask for a WebSocket, and wait for it."""
        lines = [
            "GET /ws HTTP/1.1",
            f"Host: {HOST}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {b64encode(secrets.token_bytes(16)).decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if self._transport is not None:
            self._transport.write("\r\n".join([*lines, "", ""]).encode())
        await self._opened

    def _write(self, opcode: int, body: bytes) -> None:
        size = len(body)
        length = bytes([_MASKED | size]) if size < _SHORT else bytes([_MASKED | _SHORT]) + size.to_bytes(2)
        if self._transport is not None:
            self._transport.write(bytes([_FINAL | opcode]) + length + _MASK + body)

    def _end(self, reason: str) -> None:
        error = SocketEndedError(reason)
        if not self._opened.done():
            self._opened.set_exception(error)
        elif not self._closing:
            self._closing = True
            self._on_end(error)
        if self._transport is not None:
            self._transport.close()
