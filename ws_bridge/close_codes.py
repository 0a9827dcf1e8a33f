"""What each reason of the contract means on this side: the HTTP status, whether to try again, the close code."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType


class Reason(StrEnum):
    """The contract's error reasons, letter for letter."""

    UNAUTHENTICATED = "UNAUTHENTICATED"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - a reason, no secret
    TOKEN_REVOKED = "TOKEN_REVOKED"  # noqa: S105 - likewise
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    EMPTY_MESSAGE = "EMPTY_MESSAGE"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    MALFORMED_JSON = "MALFORMED_JSON"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    UNSUPPORTED_FILE = "UNSUPPORTED_FILE"
    RATE_LIMITED = "RATE_LIMITED"
    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"
    TOO_MANY_RUNS = "TOO_MANY_RUNS"
    RUN_CONFLICT = "RUN_CONFLICT"
    CURSOR_AHEAD = "CURSOR_AHEAD"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    TOOL_FAILED = "TOOL_FAILED"
    WORKER_LOST = "WORKER_LOST"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    DRAINING = "DRAINING"
    INTERNAL = "INTERNAL"


class CloseCode(IntEnum):
    """The codes with which the bridge closes a socket.

    40xx: reconnect at once and resume. 41xx: wait, then reconnect. 44xx: not before something changes.
    """

    NORMAL = 1000
    RESTART = 1012
    DRAINING = 4000
    HEARTBEAT_LOST = 4001
    SLOW_CONSUMER = 4008
    TOO_MANY_CONNECTIONS = 4103
    RATE_LIMITED = 4129
    PROTOCOL_ERROR = 4400
    SIGN_IN_AGAIN = 4401
    FORBIDDEN = 4403


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason means.

    `close_code` is used when the reason ends a whole socket; None says that it never should (PROTOCOL_ERROR then).
    `outage` marks failures that pass by themselves: sessions and watches are tried again and the socket stays.
    """

    http_status: int
    retryable: bool = False
    close_code: CloseCode | None = None
    outage: bool = False


MEANINGS: Mapping[Reason, Meaning] = MappingProxyType(
    {
        Reason.UNAUTHENTICATED: Meaning(401, close_code=CloseCode.SIGN_IN_AGAIN),
        Reason.TOKEN_EXPIRED: Meaning(401, close_code=CloseCode.SIGN_IN_AGAIN),
        Reason.TOKEN_REVOKED: Meaning(401, close_code=CloseCode.SIGN_IN_AGAIN),
        Reason.PERMISSION_DENIED: Meaning(403, close_code=CloseCode.FORBIDDEN),
        Reason.NOT_FOUND: Meaning(404),
        Reason.INVALID_ARGUMENT: Meaning(400),
        Reason.EMPTY_MESSAGE: Meaning(400),
        Reason.MESSAGE_TOO_LARGE: Meaning(413),
        Reason.MALFORMED_JSON: Meaning(400),
        Reason.UNKNOWN_TYPE: Meaning(400),
        Reason.UNSUPPORTED_FILE: Meaning(415),
        Reason.RATE_LIMITED: Meaning(429, retryable=True, close_code=CloseCode.RATE_LIMITED),
        Reason.TOO_MANY_CONNECTIONS: Meaning(429, retryable=True, close_code=CloseCode.TOO_MANY_CONNECTIONS),
        Reason.TOO_MANY_RUNS: Meaning(429, retryable=True),
        Reason.RUN_CONFLICT: Meaning(409, retryable=True),
        Reason.CURSOR_AHEAD: Meaning(400),
        Reason.SLOW_CONSUMER: Meaning(503, retryable=True, close_code=CloseCode.SLOW_CONSUMER, outage=True),
        Reason.DEADLINE_EXCEEDED: Meaning(504, retryable=True, close_code=CloseCode.RESTART, outage=True),
        Reason.BUDGET_EXCEEDED: Meaning(402),
        Reason.MODEL_UNAVAILABLE: Meaning(503, retryable=True),
        Reason.TOOL_FAILED: Meaning(502, retryable=True),
        Reason.WORKER_LOST: Meaning(503, retryable=True),
        Reason.STORAGE_UNAVAILABLE: Meaning(503, retryable=True, close_code=CloseCode.RESTART, outage=True),
        Reason.SERVICE_UNAVAILABLE: Meaning(503, retryable=True, close_code=CloseCode.RESTART, outage=True),
        Reason.DRAINING: Meaning(503, retryable=True, close_code=CloseCode.DRAINING, outage=True),
        Reason.INTERNAL: Meaning(500, retryable=True, close_code=CloseCode.RESTART, outage=True),
    }
)


def meaning_of(reason: str) -> Meaning:
    """Return what a reason means; one that a newer service has added means what INTERNAL means."""
    try:
        return MEANINGS[Reason(reason)]
    except ValueError:
        return MEANINGS[Reason.INTERNAL]
