"""The line under a WebSocket: its own frames are the library's, and its listener hears everything, once it listens."""

import asyncio
import logging
from typing import cast

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.server import ServerState
from websockets.server import ServerProtocol

from ws_bridge.close_codes import CloseCode
from ws_bridge.line import LINE_KEY, Line, LineProtocol, text_frames

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: apex\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frames_of_the_library(texts: list[bytes]) -> bytes:
    connection = ServerProtocol()
    connection.state = connection.state.OPEN
    for text in texts:
        connection.send_text(text)
    return b"".join(connection.data_to_send())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 100_000])
def test_a_frame_of_any_size_is_the_librarys(size: int) -> None:
    assert text_frames([b"x" * size]) == frames_of_the_library([b"x" * size])


@given(st.lists(st.text().map(str.encode)))
def test_many_frames_are_the_librarys(texts: list[bytes]) -> None:
    assert text_frames(texts) == frames_of_the_library(texts)


class RecordedTransport(asyncio.Transport):
    """A transport to nowhere. Like a real one it loses its connection after the call that closes it."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: LineProtocol | None = None
        self.written = b""
        self._reads = True
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        if not self.closed.is_set() and self.protocol is not None:
            self.closed.set()
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        self._reads = True

    def is_reading(self) -> bool:
        return self._reads


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.all: list[object] = []

    def on_frame(self, text: str | None) -> None:
        self.all.append(text)

    def on_pong(self, number: int) -> None:
        self.all.append(number)

    def on_writable(self) -> None:
        self.all.append("writable")

    def on_gone(self) -> None:
        self.all.append("gone")


class Application:
    """Accepts an upgrade when it is let, and listens unless it shall not."""

    def __init__(self, *, listens: bool = True, fails: bool = False) -> None:
        self.heard = Heard()
        self.let = asyncio.Event()
        self.done = asyncio.Event()
        self.line: Line | None = None
        self._listens = listens
        self._fails = fails

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await self.let.wait()
        self.done.set()
        if self._fails:
            raise LookupError("very internal")
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        self.line = cast("Line", scope["state"][LINE_KEY])
        if self._listens:
            self.line.listen(self.heard)


def connected(application: Application) -> tuple[LineProtocol, RecordedTransport]:
    config = uvicorn.Config(application, ws=LineProtocol, ws_per_message_deflate=False, log_config=None)
    config.load()
    transport = RecordedTransport()
    protocol = transport.protocol = LineProtocol(config, ServerState(), {})
    protocol.connection_made(transport)
    protocol.data_received(UPGRADE)
    return protocol, transport


async def accepted(application: Application) -> tuple[LineProtocol, RecordedTransport]:
    protocol, transport = connected(application)
    application.let.set()
    await application.done.wait()
    while protocol.tasks:
        await asyncio.gather(*protocol.tasks)
    assert transport.written.startswith(b"HTTP/1.1 101 ")
    transport.written = b""
    return protocol, transport


def frame(opcode: int, data: bytes) -> bytes:
    return bytes((0x80 | opcode, 0x80 | len(data))) + bytes(4) + data


async def test_frames_before_the_accept_are_heard_first() -> None:
    application = Application()
    protocol, transport = connected(application)
    protocol.data_received(frame(0x1, b"1") + frame(0x1, b"2"))
    assert not transport.is_reading()
    application.let.set()
    await asyncio.gather(*protocol.tasks)
    assert transport.is_reading()
    protocol.data_received(frame(0x1, b"3") + frame(0x2, b"4"))
    protocol.data_received(frame(0xA, (7).to_bytes(8)))

    assert application.heard.all == ["1", "2", "3", None, 7]
    assert transport.is_reading()


async def test_an_open_socket_keeps_nothing_of_its_upgrade() -> None:
    protocol, _ = await accepted(Application())
    assert not protocol.tasks
    assert not {"scope", "request", "response"} & vars(protocol).keys()


async def test_a_peer_that_does_not_read_is_known_until_it_reads() -> None:
    application = Application()
    protocol, _ = await accepted(application)
    assert application.line is not None
    seen = [application.line.writable]
    for change in (protocol.pause_writing, protocol.resume_writing):
        change()
        seen.append(application.line.writable)
    assert seen == [True, False, True]
    assert application.heard.all == ["writable"]


async def test_the_peers_close_is_answered_and_nothing_follows() -> None:
    application = Application()
    protocol, transport = await accepted(application)
    assert application.line is not None
    protocol.data_received(frame(0x8, (1000).to_bytes(2)) + frame(0x1, b"late"))
    application.line.send([b"late"])
    application.line.ping(1)
    await asyncio.sleep(0)

    assert transport.written == b"\x88\x02" + (1000).to_bytes(2)
    assert set(application.heard.all) == {"gone"}
    assert transport.closed.is_set()


async def test_nothing_is_sent_behind_our_close() -> None:
    application = Application()
    protocol, transport = await accepted(application)
    assert application.line is not None
    application.line.send([b"1"])
    application.line.close(CloseCode.NORMAL, "")
    application.line.send([b"late"])
    application.line.ping(1)
    application.line.close(CloseCode.NORMAL, "")
    protocol.data_received(frame(0x1, b"late") + frame(0x8, (1000).to_bytes(2)))

    assert transport.written == b"\x81\x011\x88\x02" + (1000).to_bytes(2)
    assert application.heard.all == ["gone"]
    assert transport.closed.is_set()


async def test_a_socket_that_nobody_listens_to_is_closed() -> None:
    _, transport = await accepted(Application(listens=False))
    assert transport.closed.is_set()


async def test_a_defect_at_an_upgrade_is_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    application = Application(fails=True)
    protocol, transport = connected(application)
    application.let.set()
    with caplog.at_level(logging.ERROR):
        await asyncio.gather(*protocol.tasks)
    assert transport.written.startswith(b"HTTP/1.1 500 ")
    assert "very internal" in caplog.text
    assert transport.closed.is_set()
