"""The mission-critical suite within the test's own process: service and bridge in a thread, on real sockets.

The suite itself is as it is; only what it asks for its deployments is another class. What it cannot do in here is to
kill a process.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from threading import Thread
from types import TracebackType
from typing import Final, Self

import pytest

from agent_service.app import open_app
from agent_service.settings import load_settings
from tests.support import deployment
from ws_bridge.app import create_app
from ws_bridge.server import BridgeServer, bridge_server, open_listener
from ws_bridge.settings import load_settings as load_bridge_settings

START_TIMEOUT_S: Final = 20
STOP_TIMEOUT_S: Final = 10


class Hosting:
    """A plugin: deployments of the suite are hosted ones."""

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()

    def pytest_configure(self) -> None:
        """Before any test module is imported."""
        self._patch.setattr(deployment, "Deployment", HostedDeployment)

    def pytest_unconfigure(self) -> None:
        """Afterwards."""
        self._patch.undo()


class Host:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="host", daemon=True)
        self._thread.start()

    def start(self, part: AbstractAsyncContextManager[None]) -> Callable[[], None]:
        """Enter the context, and return what leaves it again."""
        entered: Future[None] = Future()
        leaving = asyncio.Event()

        async def hold() -> None:
            try:
                async with part:
                    entered.set_result(None)
                    await leaving.wait()
            except BaseException as error:
                if not entered.done():
                    entered.set_exception(error)
                raise

        held = asyncio.run_coroutine_threadsafe(hold(), self._loop)
        entered.result(START_TIMEOUT_S)

        def stop() -> None:
            self._loop.call_soon_threadsafe(leaving.set)
            held.result(STOP_TIMEOUT_S)

        return stop

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_TIMEOUT_S)
        self._loop.close()


class HostedDeployment(deployment.Deployment):
    """A deployment without processes: the same settings, addresses and files."""

    def __enter__(self) -> Self:
        self._host = Host()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_bridge()
        self._stop_service()
        self._host.close()

    def start_service(self) -> None:
        self._stop_service = self._host.start(self._service())

    def start_bridge(self) -> None:
        self._stop_bridge = self._host.start(self._bridge())

    def kill_service(self) -> None:
        raise NotImplementedError("a service within this process cannot be killed")

    def kill_bridge(self) -> None:
        raise NotImplementedError("a bridge within this process cannot be killed")

    @asynccontextmanager
    async def _service(self) -> AsyncIterator[None]:
        settings = load_settings(self._env)
        if self._service_module == "agent_service":
            async with open_app(settings):
                yield
        else:
            async with importlib.import_module(self._service_module).serving(settings):
                yield

    @asynccontextmanager
    async def _bridge(self) -> AsyncIterator[None]:
        settings = load_bridge_settings(self._env)
        app = create_app(settings)
        started = asyncio.Event()
        server = _QuietServer(bridge_server(app, started.set).config, app.state.bridge, started.set)
        with open_listener(settings.http_address) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await started.wait()
                yield
            finally:
                server.should_exit = True
                await serving


class _QuietServer(BridgeServer):
    """A server that leaves signals alone: only the main thread has them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
