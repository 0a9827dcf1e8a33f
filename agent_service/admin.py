"""Health and metrics over HTTP, for operators: on an address of its own, without sign-in, off by default."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from configuration.addresses import split_address
from storage.errors import StorageUnavailableError


class _Server(uvicorn.Server):
    """Leaves the signals to the process that it is a part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class AdminServer:
    """Serves `/healthz` (the process runs), `/readyz` (it takes runs) and `/metrics`."""

    def __init__(
        self,
        address: str,
        metrics: CollectorRegistry,
        ping: Callable[[], Awaitable[None]],
        is_draining: Callable[[], bool],
    ) -> None:
        self._address = split_address(address)
        app = FastAPI(openapi_url=None)
        app.get("/healthz")(_healthz)
        app.get("/readyz")(_readyz(ping, is_draining))
        app.get("/metrics")(_metrics(metrics))
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to listen. Raises `OSError` when the address is taken or not ours."""
        host, _ = self._address
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self._address)
        except OSError:
            listener.close()
            raise
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="admin")

    async def close(self) -> None:
        """Stop."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


async def _healthz() -> dict[str, str]:
    return {"status": "ok"}


def _readyz(ping: Callable[[], Awaitable[None]], is_draining: Callable[[], bool]) -> Callable[[], Awaitable[Response]]:
    async def readyz() -> Response:
        if is_draining():
            return Response("draining\n", status_code=503, media_type="text/plain")
        try:
            await ping()
        except StorageUnavailableError:
            return Response("the database does not answer\n", status_code=503, media_type="text/plain")
        return Response("ready\n", media_type="text/plain")

    return readyz


def _metrics(metrics: CollectorRegistry) -> Callable[[], Awaitable[Response]]:
    async def show() -> Response:
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    return show
