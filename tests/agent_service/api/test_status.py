import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from agent_service.api.status import (
    CODES,
    DEFAULT_RETRY_AFTER_MS,
    MAX_MESSAGE_CHARACTERS,
    MAX_VIOLATION_CHARACTERS,
    MAX_VIOLATIONS,
    code_of,
    session_ended,
    to_status,
    watch_ended,
)
from agent_service.engine.errors import ApexError, ErrorReason, Violation
from agent_service.engine.run import RETRYABLE_REASONS
from generated.apex.agent.v1 import agent_pb2 as pb

METADATA_LIMIT_BYTES = 8 * 1024


def test_every_reason_is_in_the_table() -> None:
    assert set(CODES) == set(ErrorReason)
    assert grpc.StatusCode.OK not in CODES.values()


@pytest.mark.parametrize("reason", ErrorReason)
def test_a_status_says_its_reason_and_whether_a_retry_can_help(reason: ErrorReason) -> None:
    status = to_status(ApexError(reason, "Words."))
    info, retry = ErrorInfo(), RetryInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, status.message) == (code_of(reason).value[0], "Words.")
    assert (info.reason, info.domain) == (reason.value, "apex.agent.v1")
    retryable = reason in RETRYABLE_REASONS
    assert info.metadata["retryable"] == ("true" if retryable else "false")
    assert any(detail.Unpack(retry) for detail in status.details) is retryable
    if retryable:
        assert retry.retry_delay.ToMilliseconds() == DEFAULT_RETRY_AFTER_MS


def test_details_that_are_known_are_told() -> None:
    violation = Violation("content", "must not be blank")
    error = ApexError(ErrorReason.RATE_LIMITED, "x", retry_after_ms=1234, violations=(violation,), last_seq=0)
    info, invalid, retry = ErrorInfo(), BadRequest(), RetryInfo()
    status = to_status(error, "e-1")
    assert [status.details[i].Unpack(into) for i, into in enumerate((info, invalid, retry))] == [True, True, True]
    assert dict(info.metadata) == {"retryable": "true", "error_id": "e-1", "last_seq": "0"}
    assert (invalid.field_violations[0].field, invalid.field_violations[0].description) == (
        "content",
        "must not be blank",
    )
    assert retry.retry_delay.ToMilliseconds() == 1234


def test_the_largest_status_fits_into_metadata() -> None:
    violations = tuple(Violation("f" * 1_000, "d" * 1_000) for _ in range(100))
    status = to_status(ApexError(ErrorReason.INVALID_ARGUMENT, "m" * 10_000, violations=violations))
    invalid = BadRequest()
    assert status.details[1].Unpack(invalid)
    assert len(invalid.field_violations) == MAX_VIOLATIONS
    assert len(invalid.field_violations[0].field) == MAX_VIOLATION_CHARACTERS
    assert len(status.message) == MAX_MESSAGE_CHARACTERS
    assert status.ByteSize() < METADATA_LIMIT_BYTES


def test_items_say_the_same() -> None:
    error = ApexError(ErrorReason.DRAINING, "Later.", retry_after_ms=5)
    assert session_ended(error, "e") == pb.SessionEnded(
        reason=pb.ERROR_REASON_DRAINING, message="Later.", retry_after_ms=5, error_id="e"
    )
    assert watch_ended(error, 7) == pb.WatchEnded(
        reason=pb.ERROR_REASON_DRAINING, message="Later.", retry_after_ms=5, last_seq=7
    )
