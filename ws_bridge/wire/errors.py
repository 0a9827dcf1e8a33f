"""A failed RPC → a failure that is safe to show."""

from collections.abc import Callable, Iterable, Mapping

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from ws_bridge.close_codes import Reason
from ws_bridge.frames import Failure, Violation

DETAILS_KEY = "grpc-status-details-bin"
UNREACHABLE = "The service does not answer. Try again in a moment."
DEFECT = "Something went wrong on our side."

#: For errors without `ErrorInfo`: they come from gRPC itself, and their text is for the log.
_OWN_TEXTS: Mapping[grpc.StatusCode, tuple[Reason, str]] = {
    grpc.StatusCode.UNAVAILABLE: (Reason.SERVICE_UNAVAILABLE, UNREACHABLE),
    grpc.StatusCode.DEADLINE_EXCEEDED: (Reason.DEADLINE_EXCEEDED, "The service did not answer in time. Try again."),
    grpc.StatusCode.CANCELLED: (Reason.SERVICE_UNAVAILABLE, UNREACHABLE),
    grpc.StatusCode.UNAUTHENTICATED: (Reason.UNAUTHENTICATED, "Sign in first: a valid token is required."),
    grpc.StatusCode.PERMISSION_DENIED: (Reason.PERMISSION_DENIED, "The token does not permit this."),
    grpc.StatusCode.NOT_FOUND: (Reason.NOT_FOUND, "It does not exist."),
    grpc.StatusCode.INVALID_ARGUMENT: (Reason.INVALID_ARGUMENT, "The request is not valid."),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Reason.RATE_LIMITED, "That was too much at once. Try again in a moment."),
    grpc.StatusCode.UNIMPLEMENTED: (Reason.UNKNOWN_TYPE, "The service does not know this request."),
}


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Return why a call failed."""
    return said_by_service(error) or Failure(*_OWN_TEXTS.get(error.code(), (Reason.INTERNAL, DEFECT)))


def said_by_service(error: grpc.aio.AioRpcError) -> Failure | None:
    """Return what the service itself says about a failed call; None where the error is gRPC's own."""
    details = _details(error)
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in details.details if details is not None else ():
        for message in (info, bad, retry):
            detail.Unpack(message)  # does nothing for another type
    if not info.reason or details is None:
        return None
    return Failure(
        info.reason,
        details.message,
        error_id=info.metadata.get("error_id", ""),
        retry_after_ms=retry.retry_delay.ToMilliseconds() or None,
        violations=tuple(Violation(broken.field, broken.description) for broken in bad.field_violations),
    )


def in_frame_terms(failure: Failure) -> Failure:
    """Return a failure of StartRun or CancelRun with the field paths that a socket's client knows."""
    return _renamed(failure, _frame_path)


def in_upload_terms(failure: Failure) -> Failure:
    """Return a failure of UploadFile in terms of the form, which has one field."""
    return _renamed(failure, lambda _: "file")


def _renamed(failure: Failure, rename: Callable[[str], str]) -> Failure:
    """Return a failure with other field paths, in its text too."""
    message = failure.message
    for violation in failure.violations:
        if violation.field:
            message = message.replace(f"{violation.field}:", f"{rename(violation.field)}:")
    violations = tuple(Violation(rename(violation.field), violation.description) for violation in failure.violations)
    return Failure(failure.reason, message, failure.error_id, failure.retry_after_ms, violations)


def _frame_path(path: str) -> str:
    inner = path.removeprefix("run.")
    return "message_id" if inner == "client_message_id" else inner


def _details(error: grpc.aio.AioRpcError) -> Status | None:
    trailing: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None
