"""A bridge on a free port of this process, over real sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.support.waiting import DEFAULT_TIMEOUT_S
from ws_bridge.app import Bounds, Bridge, create_app
from ws_bridge.server import BridgeServer, bridge_server, open_listener
from ws_bridge.settings import Settings

Frame = dict[str, Any]


class SocketClient:
    """A WebSocket client that speaks JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, kind: str, **payload: object) -> None:
        await self.connection.send(json.dumps({"type": kind, "payload": payload}))

    async def receive(self) -> Frame:
        async with asyncio.timeout(DEFAULT_TIMEOUT_S):
            frame: Frame = json.loads(await self.connection.recv())
        return frame

    async def receive_until(self, *kinds: str) -> list[Frame]:
        """Frames up to and with the first of one of these types."""
        frames = [await self.receive()]
        while frames[-1]["type"] not in kinds:
            frames.append(await self.receive())
        return frames

    async def expect(self, kind: str) -> Frame:
        frame = await self.receive()
        assert frame["type"] == kind, frame
        payload: Frame = frame["payload"]
        return payload

    async def closed(self) -> int:
        """The code with which the server closes; frames before that are dropped."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(DEFAULT_TIMEOUT_S):
                while True:
                    await self.connection.recv()
        code = self.connection.close_code
        assert code is not None
        return code


@dataclass
class RunningBridge:
    """A bridge that listens on `port` of 127.0.0.1."""

    settings: Settings
    port: int
    bridge: Bridge
    server: BridgeServer
    serving: asyncio.Task[None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def socket(
        self,
        *,
        token: str | None = None,
        subprotocols: tuple[str, ...] = (),
        origin: str | None = "default",
        headers: Mapping[str, str] | None = None,
        path: str = "/ws",
    ) -> AsyncIterator[SocketClient]:
        """Open a socket: with the header if there is a token, else as a page of the bridge itself would."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        page = None if token is not None else self.url
        chosen = page if origin == "default" else origin
        async with connect(
            f"ws://127.0.0.1:{self.port}{path}",
            additional_headers=sent,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            origin=None if chosen is None else Origin(chosen),
            compression=None,
            ping_interval=None,
            max_size=None,
        ) as connection:
            yield SocketClient(connection)

    @contextlib.asynccontextmanager
    async def signed_in(self, user: str = "alice") -> AsyncIterator[SocketClient]:
        """Open a socket and take its first frame."""
        async with self.socket(token=f"token-{user}") as client:
            await client.expect("connection_established")
            yield client


@contextlib.asynccontextmanager
async def running_bridge(
    target: str, *, bounds: Bounds | None = None, **settings: object
) -> AsyncIterator[RunningBridge]:
    """Serve a bridge for the service at `target` until the block is left."""
    base = Settings.model_validate(
        {"environment": "test", "http_address": "127.0.0.1:0", "agent_target": target, **settings}
    )
    listener = open_listener(base.http_address)
    port = int(listener.getsockname()[1])
    bound = base.listening_on(port)
    app = create_app(bound, bounds)
    started = asyncio.Event()
    server = bridge_server(app, on_started=started.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(DEFAULT_TIMEOUT_S):
            await started.wait()
        yield RunningBridge(bound, port, app.state.bridge, server, serving)
    finally:
        server.should_exit = True
        await serving
        listener.close()
