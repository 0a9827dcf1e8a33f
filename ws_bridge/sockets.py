"""All sockets of the process: who may begin, the tick, the drain. Also the ASGI application behind `/ws`."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from starlette.types import Receive, Scope, Send

from ws_bridge.close_codes import Reason
from ws_bridge.endpoint import Connections, Endpoint
from ws_bridge.frames import Failure
from ws_bridge.http_errors import error_response
from ws_bridge.limits import SessionLimits
from ws_bridge.line import LINE_KEY, Line
from ws_bridge.origins import Origins
from ws_bridge.session import Session
from ws_bridge.sign_in import SignIn, sign_in_of

logger = logging.getLogger(__name__)

MAX_UNSIGNED: Final = 100
"""Sockets of this process that have brought no token yet."""
MAX_UNSIGNED_PER_ADDRESS: Final = 10
TICK_MS: Final = 250
"""How often sessions are told the time, in milliseconds."""
RECONNECT_MIN_MS: Final = 500
RECONNECT_MAX_MS: Final = 5_000
"""When a drained socket shall come back, in milliseconds; spread, so that not all come in one moment."""
DRAIN_TIMEOUT_S: Final = 6.0
"""How long a drain waits for sockets to take their last frames, in seconds."""


class Unsigned:
    """Counts the sockets that have brought no token yet, by address."""

    def __init__(self) -> None:
        self._by_address: Counter[str] = Counter()

    def admit(self, address: str) -> bool:
        """Count a new socket, unless there are too many."""
        if self._by_address.total() >= MAX_UNSIGNED or self._by_address[address] >= MAX_UNSIGNED_PER_ADDRESS:
            return False
        self._by_address[address] += 1
        return True

    def release(self, address: str) -> None:
        """The socket has brought its token, or is gone."""
        self._by_address[address] -= 1
        if self._by_address[address] <= 0:
            del self._by_address[address]


class Sockets:
    """The ASGI application behind `/ws`."""

    def __init__(self, connections: Connections, limits: SessionLimits, origins: Origins) -> None:
        self._shared = connections
        self._limits = limits
        self._origins = origins
        self._unsigned = Unsigned()
        self._endpoints: dict[str, Endpoint] = {}
        self.draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one upgrade; an open socket is then served by its endpoint, without this application."""
        await receive()  # websocket.connect
        line: Line = scope["state"][LINE_KEY]
        sign_in = sign_in_of(scope)
        refusal = self._refusal(sign_in, line.address)
        if refusal is not None:
            self._shared.metrics.refused.labels(refusal.reason).inc()
            await error_response(refusal, self._shared.clock.new_id())(scope, receive, send)
            return
        release = _Once(lambda: self._unsigned.release(line.address))
        try:
            await send({"type": "websocket.accept", "subprotocol": sign_in.subprotocol, "headers": []})
            self._begin(line, sign_in, release)
        except BaseException:
            release()
            raise

    async def tick_forever(self) -> None:
        """Tell every session the time, until cancelled."""
        while True:
            await asyncio.sleep(TICK_MS / 1000)
            for endpoint in tuple(self._endpoints.values()):
                try:
                    endpoint.tick()
                except Exception:  # the border: one socket's defect must not stop the clock of all
                    logger.exception("A socket could not take a tick (error_id %s).", endpoint.on_defect())

    async def drain(self) -> None:
        """Refuse new sockets, tell the others to reconnect elsewhere, and wait until they are gone."""
        self.draining = True
        for endpoint in tuple(self._endpoints.values()):
            endpoint.drain(random.randint(RECONNECT_MIN_MS, RECONNECT_MAX_MS))  # noqa: S311 - spreads load
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._empty.wait()
        except TimeoutError:
            logger.warning("%d sockets did not close in time.", len(self._endpoints))

    def _begin(self, line: Line, sign_in: SignIn, release: "_Once") -> None:
        clock = self._shared.clock
        session_id = clock.new_id()

        def end() -> None:
            release()
            del self._endpoints[session_id]
            if not self._endpoints:
                self._empty.set()

        session = Session(session_id, self._limits, clock.monotonic_ms(), attached=self._shared.upstream.attached)
        endpoint = Endpoint(session_id, session, line, self._shared, on_token_brought=release, on_end=end)
        self._endpoints[session_id] = endpoint
        self._empty.clear()
        try:
            endpoint.begin(sign_in.token)
        except BaseException:
            endpoint.on_gone()
            raise

    def _refusal(self, sign_in: SignIn, address: str) -> Failure | None:
        """Return why a socket must not begin, or None; then it is counted as not signed in."""
        if self.draining:
            return Failure(Reason.DRAINING, "This server is about to end. Connect again.")
        if not self._origins.permits_socket(sign_in.origin, bearer=sign_in.by_header):
            return Failure(Reason.PERMISSION_DENIED, "This page's origin may not connect here.")
        if not self._unsigned.admit(address):
            text = "Too many connections are waiting for their sign-in. Try again in a moment."
            return Failure(Reason.TOO_MANY_CONNECTIONS, text, retry_after_ms=RECONNECT_MAX_MS)
        return None


class _Once:
    """Calls something the first time only."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def __call__(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()
