"""The composition root of the bridge: `create_app(settings)` is the only place where its parts meet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import WebSocketRoute
from starlette.staticfiles import StaticFiles

from ws_bridge.calls import Calls
from ws_bridge.channels import attach_channel, call_channel
from ws_bridge.clock import Clock
from ws_bridge.docs import STYLE, docs_page
from ws_bridge.endpoint import Connections
from ws_bridge.http_errors import add_error_handlers
from ws_bridge.http_guard import STATIC, HttpGuard
from ws_bridge.limits import SessionLimits
from ws_bridge.metrics import BridgeMetrics
from ws_bridge.outbox import OutboxLimits
from ws_bridge.rest import dev_token_route, json_response, run_routes, thread_routes
from ws_bridge.rest_files import file_routes
from ws_bridge.settings import Settings, split_list
from ws_bridge.sockets import Sockets
from ws_bridge.upstream import Upstream

READ: Final = ["GET", "HEAD"]
READY_WAIT_S: Final = 1.0
"""How long a start waits for the service, in seconds; it goes on without, and says so at `/readyz`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits that are no settings. Times in milliseconds."""

    sign_in_ms: int = 10_000
    open_ms: int = 10_000
    max_pending_frames: int = 64
    retry_ms: int = 20_000
    outbox: OutboxLimits = field(default_factory=OutboxLimits)


@dataclass(frozen=True, slots=True)
class Bridge:
    """The parts of one bridge that outlive a request."""

    upstream: Upstream
    calls: Calls
    sockets: Sockets
    metrics: BridgeMetrics
    tasks: set[asyncio.Task[None]]

    @property
    def ready(self) -> bool:
        """True while the service can be reached."""
        return self.upstream.attached


def create_app(settings: Settings, bounds: Bounds | None = None) -> FastAPI:
    """Return the application. It must be served by `ws_bridge.server`, which knows the transport that it needs."""
    clock = Clock()
    bridge = _bridge(settings, bounds or Bounds(), clock)
    app = FastAPI(
        title="Apex",
        description="Threads, runs, files and events of Apex. The live stream is the WebSocket at /ws.",
        docs_url=None,
        redoc_url=None,
        lifespan=lambda _: _lifespan(settings, bridge),
    )
    app.state.bridge = bridge
    add_error_handlers(app, clock.new_id)
    app.include_router(thread_routes(bridge.calls), prefix="/api/v1")
    app.include_router(run_routes(bridge.calls), prefix="/api/v1")
    app.include_router(file_routes(bridge.calls, settings.max_upload_bytes), prefix="/api/v1")
    if settings.environment.is_local:
        app.include_router(dev_token_route(bridge.calls))
    add_health(app, bridge)
    _add_pages(app)
    app.router.routes.append(WebSocketRoute("/ws", bridge.sockets))
    allowed = split_list(settings.allowed_origins)
    if allowed:
        app.add_middleware(
            CORSMiddleware, allow_origins=allowed, allow_methods=["*"], allow_headers=["authorization", "content-type"]
        )
    app.add_middleware(HttpGuard, origins=settings.origins, new_id=clock.new_id)
    return app


def add_health(app: FastAPI, bridge: Bridge) -> None:
    """Add `/healthz` (this process works) and `/readyz` (it can serve: the service is reachable)."""

    @app.api_route("/healthz", methods=READ, include_in_schema=False)
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @app.api_route("/readyz", methods=READ, include_in_schema=False)
    async def readyz() -> Response:
        if bridge.sockets.draining:
            return json_response({"status": "draining"}, 503)
        return json_response({"status": "ready"}) if bridge.ready else json_response({"status": "no service"}, 503)


def _bridge(settings: Settings, bounds: Bounds, clock: Clock) -> Bridge:
    upstream = Upstream()
    calls = Calls(bounds.retry_ms)
    metrics = BridgeMetrics()
    tasks: set[asyncio.Task[None]] = set()

    def start_task(work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    shared = Connections(
        upstream=upstream,
        calls=calls,
        clock=clock,
        start_task=start_task,
        metrics=metrics,
        outbox_limits=bounds.outbox,
        max_frame_bytes=settings.max_frame_bytes,
    )
    sockets = Sockets(shared, _session_limits(settings, bounds), settings.origins)
    return Bridge(upstream, calls, sockets, metrics, tasks)


def _session_limits(settings: Settings, bounds: Bounds) -> SessionLimits:
    limits = settings.limits
    return SessionLimits(
        sign_in_ms=bounds.sign_in_ms,
        open_ms=bounds.open_ms,
        heartbeat_interval_ms=int(limits.heartbeat_interval_s * 1000),
        heartbeat_timeout_ms=int(limits.heartbeat_timeout_s * 1000),
        idle_ms=int(limits.connection_timeout_s * 1000),
        max_frames_per_minute=limits.frames_per_minute,
        max_frame_bytes=settings.max_frame_bytes,
        max_pending_frames=bounds.max_pending_frames,
    )


@contextlib.asynccontextmanager
async def _lifespan(settings: Settings, bridge: Bridge) -> AsyncIterator[None]:
    async with attach_channel(settings.agent_target) as attach, call_channel(settings.agent_target) as call:
        bridge.calls.open(call)
        background = [
            asyncio.create_task(bridge.upstream.run(attach), name="attach"),
            asyncio.create_task(bridge.sockets.tick_forever(), name="tick"),
        ]
        try:
            await bridge.upstream.wait_attached(READY_WAIT_S)
            yield
        finally:
            for task in (*background, *bridge.tasks):
                task.cancel()
            await asyncio.gather(*background, *bridge.tasks, return_exceptions=True)


def _add_pages(app: FastAPI) -> None:
    @app.api_route("/", methods=READ, include_in_schema=False)
    async def index() -> Response:
        return FileResponse(STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/docs.css", include_in_schema=False)
    async def docs_style() -> Response:
        return Response(STYLE, media_type="text/css")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
