"""What every reason of the contract means, written down by hand: any drift of the code from it fails a test."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from grpc import StatusCode


@dataclass(frozen=True, slots=True)
class Meant:
    """`closes` is the code with which the reason ends a socket, None where it never does."""

    code: StatusCode
    http_status: int
    retryable: bool
    closes: int | None = None


REASONS: Final[Mapping[str, Meant]] = {
    "UNAUTHENTICATED": Meant(StatusCode.UNAUTHENTICATED, 401, retryable=False, closes=4401),
    "TOKEN_EXPIRED": Meant(StatusCode.UNAUTHENTICATED, 401, retryable=False, closes=4401),
    "TOKEN_REVOKED": Meant(StatusCode.UNAUTHENTICATED, 401, retryable=False, closes=4401),
    "PERMISSION_DENIED": Meant(StatusCode.PERMISSION_DENIED, 403, retryable=False, closes=4403),
    "NOT_FOUND": Meant(StatusCode.NOT_FOUND, 404, retryable=False),
    "INVALID_ARGUMENT": Meant(StatusCode.INVALID_ARGUMENT, 400, retryable=False),
    "EMPTY_MESSAGE": Meant(StatusCode.INVALID_ARGUMENT, 400, retryable=False),
    "MESSAGE_TOO_LARGE": Meant(StatusCode.INVALID_ARGUMENT, 413, retryable=False),
    "MALFORMED_JSON": Meant(StatusCode.INVALID_ARGUMENT, 400, retryable=False),
    "UNKNOWN_TYPE": Meant(StatusCode.UNIMPLEMENTED, 400, retryable=False),
    "UNSUPPORTED_FILE": Meant(StatusCode.INVALID_ARGUMENT, 415, retryable=False),
    "RATE_LIMITED": Meant(StatusCode.RESOURCE_EXHAUSTED, 429, retryable=True, closes=4129),
    "TOO_MANY_CONNECTIONS": Meant(StatusCode.RESOURCE_EXHAUSTED, 429, retryable=True, closes=4103),
    "TOO_MANY_RUNS": Meant(StatusCode.RESOURCE_EXHAUSTED, 429, retryable=True),
    "RUN_CONFLICT": Meant(StatusCode.ABORTED, 409, retryable=True),
    "CURSOR_AHEAD": Meant(StatusCode.OUT_OF_RANGE, 400, retryable=False),
    "SLOW_CONSUMER": Meant(StatusCode.ABORTED, 503, retryable=True, closes=4008),
    "DEADLINE_EXCEEDED": Meant(StatusCode.DEADLINE_EXCEEDED, 504, retryable=True, closes=1012),
    "BUDGET_EXCEEDED": Meant(StatusCode.FAILED_PRECONDITION, 402, retryable=False),
    "MODEL_UNAVAILABLE": Meant(StatusCode.UNAVAILABLE, 503, retryable=True),
    "TOOL_FAILED": Meant(StatusCode.UNKNOWN, 502, retryable=True),
    "WORKER_LOST": Meant(StatusCode.ABORTED, 503, retryable=True),
    "STORAGE_UNAVAILABLE": Meant(StatusCode.UNAVAILABLE, 503, retryable=True, closes=1012),
    "SERVICE_UNAVAILABLE": Meant(StatusCode.UNAVAILABLE, 503, retryable=True, closes=1012),
    "DRAINING": Meant(StatusCode.UNAVAILABLE, 503, retryable=True, closes=4000),
    "INTERNAL": Meant(StatusCode.INTERNAL, 500, retryable=True, closes=1012),
}
"""By reason, in the order of the contract."""
