"""The errors that people meet, with one reason each. The transports map them; their texts are safe to show."""

from dataclasses import dataclass
from enum import StrEnum


class ErrorReason(StrEnum):
    """The contract's reasons, letter for letter."""

    UNAUTHENTICATED = "UNAUTHENTICATED"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - a reason, no secret
    TOKEN_REVOKED = "TOKEN_REVOKED"  # noqa: S105 - a reason, no secret
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


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid field: `field` is its path in the request."""

    field: str
    description: str


class ApexError(Exception):
    """An error with a reason and a text for the user. `retry_after_ms` is set where waiting helps.

    `last_seq` is set where a stream ended early: the last event that was delivered.
    """

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        *,
        retry_after_ms: int | None = None,
        violations: tuple[Violation, ...] = (),
        last_seq: int | None = None,
        recovery_suggestions: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.violations = violations
        self.last_seq = last_seq
        self.recovery_suggestions = recovery_suggestions


class Remedy(StrEnum):
    """What may help after a language model failed."""

    AGAIN = "again"
    OTHER_MODEL = "other model"
    NONE = "none"


class ModelError(ApexError):
    """MODEL_UNAVAILABLE, and whether to ask again, to ask another model only, or nobody."""

    def __init__(
        self,
        message: str,
        remedy: Remedy,
        *,
        retry_after_ms: int | None = None,
        recovery_suggestions: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            ErrorReason.MODEL_UNAVAILABLE,
            message,
            retry_after_ms=retry_after_ms,
            recovery_suggestions=recovery_suggestions,
        )
        self.remedy = remedy


class FencedError(Exception):
    """Another worker has claimed the run: whoever gets this stops and writes nothing more, anywhere."""


class GrammarError(Exception):
    """An event does not fit the run's state: a defect of ours, never of a user."""


class HandoverError(Exception):
    """This process is stopping and the run stands at a safe point: another worker goes on from here."""
