"""What happens around every call: request id, log, metrics, sign-in, deadline, and the border for errors."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
import structlog

from agent_service.api.auth import TokenVerifier, bearer
from agent_service.api.call import Call
from agent_service.api.defects import report_defect
from agent_service.api.metrics import ApiMetrics
from agent_service.api.options import Deadlines
from agent_service.api.status import DETAILS_KEY, code_of, to_status
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.ports import Ids

REQUEST_ID_KEY: Final = "x-request-id"
"""Metadata key: a caller may choose the id; every answer carries it in its trailing metadata."""

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Method:
    """What the border must know of a method."""

    name: str
    needs_token: bool
    streams_in: bool
    streams_out: bool


class Border:
    """Around every call. What comes out of it is a response, a status with details, or a cancellation."""

    def __init__(self, verifier: TokenVerifier, deadlines: Deadlines, metrics: ApiMetrics, ids: Ids) -> None:
        self._verifier = verifier
        self._deadlines = deadlines
        self._metrics = metrics
        self._ids = ids
        self._logger = structlog.get_logger("apex.grpc")

    @asynccontextmanager
    async def around(self, method: Method, context: grpc.aio.ServicerContext[object, object]) -> AsyncIterator[Call]:
        """Run the body as one call; never returns normally after an error of the body."""
        metadata = _metadata(context)
        request_id = self._request_id(metadata)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        with structlog.contextvars.bound_contextvars(request_id=request_id, method=method.name):
            started = time.monotonic()
            code = grpc.StatusCode.CANCELLED
            self._metrics.open_calls.labels(method.name).inc()
            try:
                user = await self._sign_in(method, metadata, request_id)
                async with _deadline(self._timeout_ms(method)):
                    yield Call(context, request_id, user)
                code = grpc.StatusCode.OK
            except ApexError as error:
                code = code_of(error.reason)
                await self._abort(context, request_id, error)
            except Exception as defect:  # noqa: BLE001 - the border: nobody outside sees what this was
                code = grpc.StatusCode.INTERNAL
                shown, error_id = report_defect(self._logger, self._ids, defect)
                await self._abort(context, request_id, shown, error_id)
            finally:
                self._finish(method, code, time.monotonic() - started)

    def _timeout_ms(self, method: Method) -> int | None:
        if method.streams_out:
            return None
        return self._deadlines.upload_ms if method.streams_in else self._deadlines.unary_ms

    def _request_id(self, metadata: dict[str, str]) -> str:
        given = metadata.get(REQUEST_ID_KEY, "")
        return given if REQUEST_ID.fullmatch(given) else self._ids.new()

    async def _sign_in(self, method: Method, metadata: dict[str, str], request_id: str) -> UserExecutionContext | None:
        if not method.needs_token:
            return None
        user = await self._verifier.verify(bearer(metadata.get("authorization", "")), request_id)
        structlog.contextvars.bind_contextvars(user_id=user.user_id)
        return user

    async def _abort(
        self,
        context: grpc.aio.ServicerContext[object, object],
        request_id: str,
        error: ApexError,
        error_id: str = "",
    ) -> None:
        status = to_status(error, error_id)
        trailing = ((DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, request_id))
        await context.abort(code_of(error.reason), status.message, trailing)

    def _finish(self, method: Method, code: grpc.StatusCode, seconds: float) -> None:
        self._metrics.open_calls.labels(method.name).dec()
        self._metrics.calls.labels(method.name, code.name).inc()
        if not method.streams_out:
            self._metrics.seconds.labels(method.name).observe(seconds)
        self._logger.info("call", code=code.name, duration_ms=round(seconds * 1000, 1))


@asynccontextmanager
async def _deadline(timeout_ms: int | None) -> AsyncIterator[None]:
    """Raise `ApexError(DEADLINE_EXCEEDED)` out of the body when it takes longer."""
    timeout = asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000)
    try:
        async with timeout:
            yield
    except TimeoutError:
        if not timeout.expired():
            raise
        raise ApexError(ErrorReason.DEADLINE_EXCEEDED, "This took too long and was stopped. Try again.") from None


def _metadata(context: grpc.aio.ServicerContext[object, object]) -> dict[str, str]:
    """Return the text values of the call's metadata; the first of each key."""
    found: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(key, value)
    return found
