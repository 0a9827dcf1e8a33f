"""A WebSocket client that does nothing by itself: neither does it read, nor answer a ping, until it is told to.

Its receive buffer is as small as the kernel permits, so that a line that is not read is soon full.
"""

import asyncio
import json
import secrets
import socket
import struct
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

HOST: Final = "127.0.0.1"
RECEIVE_BUFFER_BYTES: Final = 4096
TIMEOUT_S: Final = 20.0
READ_BYTES: Final = 65_536
TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FINAL: Final = 0x80
_MASKED: Final = 0x80
_NO_MASK: Final = bytes(4)
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_RESET: Final = struct.pack("ii", 1, 0)


class PeerEndedError(Exception):
    """The server has broken the connection."""


class ManualSocket:
    """One connection. Frames are pairs of opcode and payload."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._buffer = bytearray()

    @property
    def port(self) -> int:
        """Our own port."""
        return int(self._line.getsockname()[1])

    async def send(self, opcode: int, payload: bytes) -> None:
        """Send one frame of at most 125 bytes."""
        head = bytes([_FINAL | opcode, _MASKED | len(payload)])
        await asyncio.get_running_loop().sock_sendall(self._line, head + _NO_MASK + payload)

    async def say(self, kind: str, **payload: object) -> None:
        """Send a frame of the protocol."""
        await self.send(TEXT, json.dumps({"type": kind, "payload": payload}).encode())

    async def read(self) -> None:
        """Take what has arrived, at least something. Raises `PeerEndedError`."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                data = await asyncio.get_running_loop().sock_recv(self._line, READ_BYTES)
        except ConnectionError as error:
            raise PeerEndedError from error
        if not data:
            raise PeerEndedError
        self._buffer += data

    def frames(self) -> list[tuple[int, bytes]]:
        """Return the whole frames that were read, each once."""
        found = []
        while (frame := self._frame()) is not None:
            found.append(frame)
        return found

    async def next_frame(self) -> tuple[int, bytes]:
        """Read on until a frame is whole."""
        while (frame := self._frame()) is None:
            await self.read()
        return frame

    async def next_text(self, kind: str) -> dict[str, object]:
        """Read on to the next frame of this type of the protocol; drop what comes before it."""
        while True:
            opcode, payload = await self.next_frame()
            if opcode == TEXT and (value := json.loads(payload))["type"] == kind:
                frame: dict[str, object] = value
                return frame

    async def ended(self) -> None:
        """Read until the server has broken the connection."""
        with suppress(PeerEndedError):
            while True:
                await self.read()

    async def upgrade(self, port: int, token: str) -> None:
        """Ask for a WebSocket, and wait for the answer."""
        request = (
            f"GET /ws HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {b64encode(secrets.token_bytes(16)).decode()}\r\n"
            + (f"Authorization: Bearer {token}\r\n\r\n" if token else f"Origin: http://{HOST}:{port}\r\n\r\n")
        )
        await asyncio.get_running_loop().sock_sendall(self._line, request.encode())
        while b"\r\n\r\n" not in self._buffer:
            await self.read()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self._buffer[:] = rest

    def reset(self) -> None:
        """Break the connection without a word."""
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._line.close()

    def close(self) -> None:
        """Close the connection, without the protocol's close."""
        self._line.close()

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._buffer
        if len(data) < 2:
            return None
        length, start = data[1], 2
        if length == _TWO_BYTES:
            length, start = int.from_bytes(data[2:4]), 4
        elif length == _EIGHT_BYTES:
            length, start = int.from_bytes(data[2:10]), 10
        if len(data) < start or len(data) < start + length:
            return None
        frame = (data[0] & 0x0F, bytes(data[start : start + length]))
        del data[: start + length]
        return frame


@asynccontextmanager
async def manual_socket(port: int, token: str) -> AsyncIterator[ManualSocket]:
    """Connect, upgrade with the token (none: as a page would, without a sign-in), and close at the end."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    line.settimeout(0)  # the event loop waits, not the socket
    client = ManualSocket(line)
    try:
        await asyncio.get_running_loop().sock_connect(line, (HOST, port))
        await client.upgrade(port, token)
        yield client
    finally:
        client.close()
