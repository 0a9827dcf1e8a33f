"""Serves the bridge: binds, prints where it listens, drains on SIGTERM, ends in time."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Final

import uvicorn
from fastapi import FastAPI

from configuration.addresses import split_address
from configuration.variables import SettingsError, env_file_argument
from ws_bridge.admin import admin_app
from ws_bridge.app import Bridge, create_app
from ws_bridge.line import LineProtocol
from ws_bridge.settings import MAX_MESSAGE_BYTES, Settings, load_settings

GRACEFUL_TIMEOUT_S: Final = 10
"""How long requests that are under way may take after SIGTERM, in seconds."""
BACKLOG: Final = 2048
EXIT_FAILED: Final = 1


class BridgeServer(uvicorn.Server):
    """uvicorn's server, which tells the sockets to reconnect before it closes anything, and ends with exit code 0."""

    def __init__(self, config: uvicorn.Config, bridge: Bridge, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._bridge = bridge
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain our sockets, then let uvicorn close the rest."""
        for server in self.servers:
            server.close()
        await self._bridge.sockets.drain()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGINT and SIGTERM; unlike uvicorn, do not raise them again afterwards."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the bridge until it is told to stop; return the exit code."""
    env_file = env_file_argument("python -m ws_bridge", arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # At INFO uvicorn would repeat whole request lines.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        settings = load_settings(environ, env_file)
        with open_listener(settings.http_address) as listener, _admin_listener(settings) as admin:
            bound = settings.listening_on(int(listener.getsockname()[1]))
            with asyncio.Runner(loop_factory=_new_event_loop) as runner:
                runner.run(_serve(bound, listener, admin))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED
    return 0


def open_listener(address: str) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: the address is taken or not ours; the message says so in words.
    """
    host, port = split_address(address)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        text = f"Cannot listen on {address}: {error.strerror}. Is another bridge running? Set APEX_HTTP_ADDRESS."
        raise OSError(text) from error
    return listener


def bridge_server(app: FastAPI, on_started: Callable[[], None]) -> BridgeServer:
    """Return a server for an application of `create_app`; `serve(sockets=[listener])` runs it."""
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws=LineProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACEFUL_TIMEOUT_S,
    )
    bridge: Bridge = app.state.bridge
    return BridgeServer(config, bridge, on_started)


async def _serve(settings: Settings, listener: socket.socket, admin: socket.socket | None) -> None:
    app = create_app(settings)
    bridge: Bridge = app.state.bridge
    async with contextlib.AsyncExitStack() as stack:
        if admin is not None:
            await stack.enter_async_context(_serving_admin(bridge, admin))
        await bridge_server(app, on_started=lambda: _started(settings)).serve(sockets=[listener])


@contextlib.asynccontextmanager
async def _serving_admin(bridge: Bridge, listener: socket.socket) -> AsyncIterator[None]:
    server = _QuietServer(uvicorn.Config(admin_app(bridge), loop="none", log_config=None, access_log=False))
    task = asyncio.create_task(server.serve(sockets=[listener]), name="admin")
    try:
        yield
    finally:
        server.should_exit = True
        await task


class _QuietServer(uvicorn.Server):
    """A server that leaves signals to the other one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _started(settings: Settings) -> None:
    # What the start has made stays: a full collection that looks through it holds up all sockets for 50 ms.
    gc.collect()
    gc.freeze()
    sys.stdout.write(f"bridge listening on http://{settings.http_address}\n")
    sys.stdout.flush()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def _admin_listener(settings: Settings) -> contextlib.AbstractContextManager[socket.socket | None]:
    address = settings.bridge_admin_address
    return open_listener(address) if address else contextlib.nullcontext()
