"""What holds for every HTTP request and every upgrade: known Host, permitted Origin, secure headers."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ws_bridge.close_codes import Reason
from ws_bridge.frames import Failure
from ws_bridge.http_errors import error_response
from ws_bridge.origins import Origins

STATIC: Final = Path(__file__).with_name("static")


def _digest(style: Path) -> str:
    """Return a style as a content security policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(style.read_bytes()).digest()).decode()}"


# The style that stands inside of the frame of a report, which inherits this policy; its pictures are data in it.
CSP: Final = (
    f"default-src 'none'; script-src 'self'; style-src 'self' '{_digest(STATIC / 'styles' / 'report.css')}'; "
    "img-src 'self' blob: data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    ("content-security-policy", CSP),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
)
PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Asked by machines that know only an address."""
NOT_STORED: Final = ("/api/", "/auth/", "/healthz", "/readyz")
MAX_BODY_BYTES: Final = 64 * 1024
"""Of a request that is no upload: such a body is read as a whole, before anybody looks at the token."""
UPLOADS: Final = "/api/v1/files"
"""Where bodies pass through piece by piece; the handler bounds them."""


class HttpGuard:
    """ASGI middleware. WebSockets get the Host check here; their Origin is checked where their sign-in is known."""

    def __init__(self, app: ASGIApp, origins: Origins, new_id: Callable[[], str]) -> None:
        self._app = app
        self._origins = origins
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what is not for us; else pass it on and add headers to the answer."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS:
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store" if path.startswith(NOT_STORED) else "no-cache")
            await send(message)

        failure = self._refusal(scope, Headers(scope=scope))
        if failure is None:
            bounded = receive if scope["type"] == "websocket" or path == UPLOADS else _bounded(receive)
            await self._app(scope, bounded, send_with_headers)
        else:
            await error_response(failure, self._new_id())(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Failure | None:
        if scope["path"] in PROBES:
            return None
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._origins.answers_to(hosts[0]):
            text = "This server does not answer under this name. Its names are set by APEX_PUBLIC_URL."
            return Failure(Reason.INVALID_ARGUMENT, text)
        length = headers.get("content-length", "")
        if scope["path"] != UPLOADS and length.isdecimal() and int(length) > MAX_BODY_BYTES:
            return Failure(Reason.MESSAGE_TOO_LARGE, f"The body is too large: at most {MAX_BODY_BYTES} bytes.")
        origin = headers.get("origin")
        if scope["type"] == "http" and origin is not None and not self._origins.permits(origin):
            return Failure(Reason.PERMISSION_DENIED, "This page's origin may not send requests here.")
        return None


def _bounded(receive: Receive) -> Receive:
    """Break off a body that does not say how long it is, once it is too long: it becomes an invalid request."""
    size = 0

    async def next_message() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        return message if size <= MAX_BODY_BYTES else {"type": "http.disconnect"}

    return next_message
