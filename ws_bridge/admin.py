"""Health and metrics over HTTP on the admin address, for machines."""

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from ws_bridge.app import Bridge, add_health


def admin_app(bridge: Bridge) -> FastAPI:
    """Return the application of the admin address."""
    app = FastAPI(title="Apex bridge, admin", openapi_url=None, docs_url=None, redoc_url=None)
    add_health(app, bridge)

    @app.get("/metrics")
    async def metrics() -> Response:
        bridge.metrics.sockets.set(len(bridge.sockets))
        bridge.metrics.attached.set(int(bridge.ready))
        return Response(generate_latest(bridge.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app
