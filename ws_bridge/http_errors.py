"""Errors of HTTP requests: the body of the socket's error frame, the status of the one table."""

import logging
from collections.abc import Callable, Iterable

import grpc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ws_bridge.close_codes import Reason, meaning_of
from ws_bridge.frames import Failure, Violation, error_frame
from ws_bridge.wire.errors import DEFECT, failure_of
from ws_bridge.wire.server_frames import frame_json
from ws_bridge.wire.validation import invalid_message

logger = logging.getLogger(__name__)

JSON = "application/json"
NOT_FOUND_STATUS = 404
METHOD_STATUS = 405
#: What reading a body raises that is no JSON at all, beside what FastAPI itself reports.
UNREADABLE = (UnicodeDecodeError, RecursionError)
MALFORMED = Failure(Reason.MALFORMED_JSON, "The body is not usable JSON.")


class RefusedError(Exception):
    """A request that the bridge itself refuses."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def error_response(failure: Failure, new_id: str, status: int | None = None) -> Response:
    """Return a failure as a response; `status` only for what HTTP itself says."""
    body = frame_json(error_frame(failure, new_id))
    headers = {"WWW-Authenticate": "Bearer"} if meaning_of(failure.reason).http_status == 401 else {}  # noqa: PLR2004
    if failure.retry_after_ms:
        headers["Retry-After"] = str(-(-failure.retry_after_ms // 1000))
    return Response(body, status or meaning_of(failure.reason).http_status, headers, JSON)


def add_error_handlers(app: FastAPI, new_id: Callable[[], str]) -> None:
    """Make every error of a handler such a response; what is unknown goes to the log, never to a client."""

    def refused(_: Request, error: Exception) -> Response:
        return error_response(error.failure if isinstance(error, RefusedError) else _defect(error), new_id())

    def failed_call(_: Request, error: Exception) -> Response:
        failure = failure_of(error) if isinstance(error, grpc.aio.AioRpcError) else _defect(error)
        return error_response(failure, new_id())

    def invalid(_: Request, error: Exception) -> Response:
        return error_response(
            _invalid(error) if isinstance(error, RequestValidationError) else _defect(error), new_id()
        )

    def http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else None
        if status == NOT_FOUND_STATUS:
            return error_response(Failure(Reason.NOT_FOUND, f"There is nothing at {request.url.path}."), new_id())
        if error.__cause__ is not None and isinstance(error.__cause__, UNREADABLE):
            return error_response(MALFORMED, new_id())
        text = f"{request.method} is not possible here." if status == METHOD_STATUS else "The request is not valid."
        return error_response(Failure(Reason.INVALID_ARGUMENT, text), new_id(), status)

    def defect(_: Request, error: Exception) -> Response:
        error_id = new_id()
        logger.error("A request failed (error_id %s).", error_id, exc_info=error)
        return error_response(_defect(error), error_id)

    def unwritable(_: Request, __: Exception) -> Response:
        return error_response(MALFORMED, new_id())

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(UnicodeEncodeError, unwritable)  # half a surrogate pair: JSON has it, UTF-8 does not
    app.add_exception_handler(grpc.aio.AioRpcError, failed_call)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, defect)


def _defect(_: Exception) -> Failure:
    return Failure(Reason.INTERNAL, DEFECT)


def _invalid(error: RequestValidationError) -> Failure:
    items = error.errors()
    if any(item["type"] == "json_invalid" for item in items):
        return MALFORMED
    if any(item["loc"] == ("body",) for item in items):
        return Failure(Reason.INVALID_ARGUMENT, "The body must be a JSON object, with Content-Type: application/json.")
    violations = tuple(Violation(_path(item["loc"][1:]), _description(str(item["msg"]))) for item in items)
    return Failure(Reason.INVALID_ARGUMENT, invalid_message(violations), violations=violations)


def _path(parts: Iterable[str | int]) -> str:
    """Return a path as the contract writes it: `a.b[0].c`."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _description(text: str) -> str:
    """Return what is wrong in the contract's manner: `must be …`."""
    plain, _, _ = text.partition(", unable to parse")
    return "is required" if plain == "Field required" else plain.replace("Input should be", "must be", 1)
