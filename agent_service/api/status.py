"""Errors on the wire: one table from reason to gRPC code, and the details that go with a status.

Whether a reason is worth a retry stands in `engine.run.RETRYABLE_REASONS`, where `agent_error` takes it from too.
"""

from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from agent_service.api.wire_events import REASONS
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.run import RETRYABLE_REASONS
from generated.apex.agent.v1 import agent_pb2 as pb

DOMAIN: Final = "apex.agent.v1"
"""The domain of every `ErrorInfo`."""

DETAILS_KEY: Final = "grpc-status-details-bin"
"""The trailing metadata key that clients read a `google.rpc.Status` from."""

DEFAULT_RETRY_AFTER_MS: Final = 1_000
"""When to try again after an error that a retry can help and that names no time itself."""

MAX_VIOLATIONS: Final = 16
"""Violations in one status. Metadata is small: peers refuse more than 8 KiB."""

MAX_VIOLATION_CHARACTERS: Final = 200
"""Of each violation's field and description."""

MAX_MESSAGE_CHARACTERS: Final = 1_000
"""Of a status message."""

CODES: Final[Mapping[ErrorReason, grpc.StatusCode]] = {
    ErrorReason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorReason.TOKEN_EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorReason.TOKEN_REVOKED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorReason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    ErrorReason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorReason.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.EMPTY_MESSAGE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.MESSAGE_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.MALFORMED_JSON: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.UNKNOWN_TYPE: grpc.StatusCode.UNIMPLEMENTED,
    ErrorReason.UNSUPPORTED_FILE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.TOO_MANY_CONNECTIONS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.TOO_MANY_RUNS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.RUN_CONFLICT: grpc.StatusCode.ABORTED,
    ErrorReason.CURSOR_AHEAD: grpc.StatusCode.OUT_OF_RANGE,
    ErrorReason.SLOW_CONSUMER: grpc.StatusCode.ABORTED,
    ErrorReason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorReason.BUDGET_EXCEEDED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorReason.MODEL_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.TOOL_FAILED: grpc.StatusCode.UNKNOWN,
    ErrorReason.WORKER_LOST: grpc.StatusCode.ABORTED,
    ErrorReason.STORAGE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.INTERNAL: grpc.StatusCode.INTERNAL,
}


def code_of(reason: ErrorReason) -> grpc.StatusCode:
    """Return the gRPC code of a reason."""
    return CODES[reason]


def retry_after_ms(error: ApexError) -> int:
    """Return when to try again, in milliseconds; 0 when a retry cannot help."""
    if error.retry_after_ms is not None:
        return error.retry_after_ms
    return DEFAULT_RETRY_AFTER_MS if error.reason in RETRYABLE_REASONS else 0


def to_status(error: ApexError, error_id: str = "") -> Status:
    """Return the status of an error: `ErrorInfo` always, `BadRequest` and `RetryInfo` where they apply.

    The metadata of `ErrorInfo` holds `retryable` (`true` or `false`), and where known `error_id` and `last_seq`.
    """
    status = Status(code=_number(code_of(error.reason)), message=error.message[:MAX_MESSAGE_CHARACTERS])
    for detail in _details(error, error_id):
        status.details.add().Pack(detail)
    return status


def _details(error: ApexError, error_id: str) -> list[Message]:
    metadata = {"retryable": "true" if error.reason in RETRYABLE_REASONS else "false"}
    if error_id:
        metadata["error_id"] = error_id
    if error.last_seq is not None:
        metadata["last_seq"] = str(error.last_seq)
    details: list[Message] = [ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=metadata)]
    if error.violations:
        details.append(_bad_request(error))
    if wait_ms := retry_after_ms(error):
        delay = Duration()
        delay.FromMilliseconds(wait_ms)
        details.append(RetryInfo(retry_delay=delay))
    return details


def _bad_request(error: ApexError) -> BadRequest:
    return BadRequest(
        field_violations=[
            BadRequest.FieldViolation(
                field=violation.field[:MAX_VIOLATION_CHARACTERS],
                description=violation.description[:MAX_VIOLATION_CHARACTERS],
            )
            for violation in error.violations[:MAX_VIOLATIONS]
        ]
    )


def session_ended(error: ApexError, error_id: str = "") -> pb.SessionEnded:
    """Return an error as the end of a session."""
    return pb.SessionEnded(
        reason=REASONS.to_wire(error.reason),
        message=_in_words(error),
        retry_after_ms=retry_after_ms(error),
        error_id=error_id,
    )


def watch_ended(error: ApexError, last_seq: int, error_id: str = "") -> pb.WatchEnded:
    """Return an error as the end of a watch that has delivered up to `last_seq`."""
    return pb.WatchEnded(
        reason=REASONS.to_wire(error.reason),
        last_seq=last_seq,
        message=_in_words(error),
        retry_after_ms=retry_after_ms(error),
        error_id=error_id,
    )


def _in_words(error: ApexError) -> str:
    return error.message[:MAX_MESSAGE_CHARACTERS]


def _number(code: grpc.StatusCode) -> int:
    """Return the number of a gRPC code: the first of the pair that grpcio keeps as its value."""
    number: int = code.value[0]
    return number
