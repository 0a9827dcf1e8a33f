"""One session of an Attach call: one socket of a gateway, signed in as one user."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from agent_service.api.auth import TokenVerifier, token_expired
from agent_service.api.connections import Connections
from agent_service.api.defects import report_defect
from agent_service.api.framing import item_frame
from agent_service.api.metrics import ApiMetrics
from agent_service.api.outbox import Outbox
from agent_service.api.status import session_ended
from agent_service.api.watches import Watches, WatchServices
from agent_service.api.wire_records import active_run_to_wire, change_to_wire
from agent_service.api.wire_values import to_timestamp
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.ports import Clock, Ids
from agent_service.engine.runs import Runs
from generated.apex.agent.v1 import agent_pb2 as pb

MAX_WAITING_REQUESTS: Final = 1_000
"""Requests of one session that wait to be handled; one more ends the session."""

EXPIRY_WARNING_MS: Final = 60_000
"""How long before its token's end a session is warned."""


@dataclass(frozen=True, slots=True)
class SessionServices:
    """What sessions work with."""

    verifier: TokenVerifier
    connections: Connections
    runs: Runs
    broadcast: Broadcast
    clock: Clock
    ids: Ids
    metrics: ApiMetrics

    @property
    def watching(self) -> WatchServices:
        """What of it watches need."""
        return WatchServices(self.broadcast, self.ids, self.metrics)


class Session:
    """Handles its requests in order, in a task of its own. Whatever ends it is told as `session_ended`, once.

    Implements `connections.Seat`.
    """

    def __init__(
        self,
        session_id: str,
        request_id: str,
        services: SessionServices,
        outbox: Outbox,
        on_end: Callable[["Session"], None],
    ) -> None:
        self.session_id = session_id
        self._request_id = request_id
        self._services = services
        self._outbox = outbox
        self._requests: list[pb.AttachRequest] = []
        self._wakeup = asyncio.Event()
        self._failure: ApexError | None = None
        self._closed = False
        self._user: UserExecutionContext | None = None
        self._warned = False
        self._watches = Watches(session_id, outbox, services.watching)
        self._task = asyncio.create_task(self._run(), name=f"session-{session_id}")
        # Also when the task is cancelled before its first step.
        self._task.add_done_callback(lambda _: on_end(self))

    def offer(self, request: pb.AttachRequest) -> None:
        """Take a request; they are handled one after the other."""
        if len(self._requests) >= MAX_WAITING_REQUESTS:
            self.fail(ApexError(ErrorReason.RATE_LIMITED, "Too many requests at once."))
            return
        self._requests.append(request)
        self._wakeup.set()

    def fail(self, error: ApexError) -> None:
        """End the session with this error as soon as it has done what it is doing."""
        self._failure = self._failure or error
        self._wakeup.set()

    def close(self) -> None:
        """End the session now, as the gateway wishes."""
        self._closed = True
        self._task.cancel()

    async def ended(self) -> None:
        """Return when the session has ended, and has said so."""
        await asyncio.wait([self._task])

    def alive(self) -> None:
        """The socket has answered a probe."""
        if self._user is not None:
            self._services.connections.answered(self._user.user_id, self)

    def probe(self, timeout_ms: int) -> None:
        self._put(pb.AttachResponse.Item(session_probe=pb.SessionProbe(timeout_ms=timeout_ms)))

    def evict(self) -> None:
        text = "This connection did not answer and a newer one has taken its place."
        self.fail(ApexError(ErrorReason.TOO_MANY_CONNECTIONS, text))

    async def _run(self) -> None:
        error: ApexError | None = None
        error_id = ""
        try:
            await self._serve()
        except ApexError as reason:
            error = reason
        except asyncio.CancelledError:
            if not self._closed:
                raise
        except Exception as defect:  # noqa: BLE001 - the border: it ends this session, not the call
            error, error_id = report_defect(self._logger(), self._services.ids, defect)
        finally:
            self._watches.stop_all(error)
        ended = session_ended(error, error_id) if error else pb.SessionEnded()
        self._put(pb.AttachResponse.Item(session_ended=ended))
        self._logger().info("session_ended", reason=error.reason.value if error else "", error_id=error_id)

    async def _serve(self) -> None:
        first = await self._next()
        user = await self._verify(first.open_session.token)
        structlog.contextvars.bind_contextvars(user_id=user.user_id)
        await self._services.connections.enter(user.user_id, self)
        self._services.metrics.sessions.inc()
        try:
            self._user = user
            await self._serve_signed_in(user)
        finally:
            self._services.metrics.sessions.dec()
            self._services.connections.leave(user.user_id, self)

    async def _serve_signed_in(self, user: UserExecutionContext) -> None:
        """Subscribe first, then report what is open: no change falls between."""
        with self._services.broadcast.thread_changes(user.user_id) as changes:

            async def forward() -> None:
                try:
                    async for change in changes:
                        frame = item_frame(
                            pb.AttachResponse.Item(session_id=self.session_id, thread_changed=change_to_wire(change))
                        )
                        await self._outbox.deliver([frame])
                except ApexError as error:
                    self.fail(error)

            await self._ready(user)
            forwarding = asyncio.create_task(forward(), name=f"changes-{self.session_id}")
            try:
                while True:
                    await self._handle(await self._next())
            finally:
                forwarding.cancel()

    async def _next(self) -> pb.AttachRequest:
        """Return the next request; meanwhile mind the token."""
        while True:
            if self._failure is not None:
                raise self._failure
            wait_s = self._mind_token()
            if self._requests:
                return self._requests.pop(0)
            self._wakeup.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wakeup.wait()
            except TimeoutError:
                continue

    def _mind_token(self) -> float | None:
        """Warn before the token ends, raise when it has; return how many seconds nothing is due."""
        if self._user is None:
            return None
        remaining_ms = (self._user.expire_time - self._services.clock.now()).total_seconds() * 1000
        if remaining_ms <= 0:
            raise token_expired()
        if remaining_ms > EXPIRY_WARNING_MS:
            return (remaining_ms - EXPIRY_WARNING_MS) / 1000
        if not self._warned:
            self._warned = True
            self._put(pb.AttachResponse.Item(session_expiring=pb.SessionExpiring(expires_in_ms=int(remaining_ms))))
        return remaining_ms / 1000

    async def _handle(self, request: pb.AttachRequest) -> None:
        match request.WhichOneof("request"):
            case "open_session":
                await self._renew(request.open_session.token)
            case "watch_run" if self._user is not None:
                self._watches.start(self._user, request.watch_run)
            case "watch_thread":
                text = "Watching a thread is not there yet. Watch its runs."
                self._watches.put_ended(request.watch_thread.watch_id, ApexError(ErrorReason.UNKNOWN_TYPE, text), 0)
            case "unwatch":
                self._watches.stop(request.unwatch.watch_id)
            case _:
                raise AssertionError(f"{request.WhichOneof('request')} is not for a session")

    async def _verify(self, token: str) -> UserExecutionContext:
        return await self._services.verifier.verify(token, self._request_id)

    async def _renew(self, token: str) -> None:
        user = await self._verify(token)
        if self._user is not None and user.user_id != self._user.user_id:
            raise ApexError(ErrorReason.PERMISSION_DENIED, "The new token belongs to another user.")
        self._user, self._warned = user, False
        await self._ready(user)

    async def _ready(self, user: UserExecutionContext) -> None:
        runs = await self._services.runs.open_runs(user)
        ready = pb.SessionReady(
            user_id=user.user_id,
            scopes=sorted(user.scopes),
            expire_time=to_timestamp(user.expire_time),
            active_runs=[active_run_to_wire(run) for run in runs],
        )
        self._put(pb.AttachResponse.Item(session_ready=ready))

    def _logger(self) -> FilteringBoundLogger:
        """Bound when something is to be said: kept, it would be the largest part of an idle session."""
        logger: FilteringBoundLogger = structlog.get_logger("apex.session").bind(session_id=self.session_id)
        return logger

    def _put(self, item: pb.AttachResponse.Item) -> None:
        item.session_id = self.session_id
        self._outbox.put(item_frame(item))
