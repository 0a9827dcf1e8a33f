"""Every error reason: its gRPC code, HTTP status, retryability and close code, the same in every part."""

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from agent_service.api.status import CODES, session_ended, to_status, watch_ended
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.run import RETRYABLE_REASONS
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.reasons import REASONS
from ws_bridge.close_codes import MEANINGS, CloseCode, Reason, meaning_of
from ws_bridge.frames import Failure, error_frame

PREFIX = "ERROR_REASON_"
CLOSE_CODES = {1000, 1012, 4000, 4001, 4008, 4103, 4129, 4400, 4401, 4403}
"""The contract's; 1001, 1009 and 1011 are the protocol's own, and not the bridge's to choose."""


def test_every_part_knows_every_reason_in_the_contracts_order() -> None:
    in_contract = [value.name.removeprefix(PREFIX) for value in pb.ErrorReason.DESCRIPTOR.values if value.number]
    assert in_contract == list(REASONS)
    for known in (ErrorReason, CODES, Reason, MEANINGS):
        assert [reason.name for reason in known] == in_contract


@pytest.mark.parametrize("reason", REASONS)
def test_the_grpc_code_is_the_tables(reason: str) -> None:
    assert CODES[ErrorReason(reason)] is REASONS[reason].code


@pytest.mark.parametrize("reason", REASONS)
def test_engine_status_and_bridge_agree_on_whether_a_retry_can_help(reason: str) -> None:
    retryable = REASONS[reason].retryable
    assert (ErrorReason(reason) in RETRYABLE_REASONS) is retryable
    info, retry = ErrorInfo(), RetryInfo()
    details = to_status(ApexError(ErrorReason(reason), "Words.")).details
    assert details[0].Unpack(info)
    assert info.metadata["retryable"] == str(retryable).lower()
    assert any(detail.Unpack(retry) for detail in details) is retryable
    assert MEANINGS[Reason(reason)].retryable is retryable
    assert error_frame(Failure(reason, "Words."), "e").retryable is retryable


@pytest.mark.parametrize("reason", REASONS)
def test_items_name_the_reason_and_when_to_try_again(reason: str) -> None:
    error = ApexError(ErrorReason(reason), "Words.")
    for ended in (session_ended(error), watch_ended(error, 1)):
        assert pb.ErrorReason.Name(ended.reason) == f"{PREFIX}{reason}"
        assert (ended.retry_after_ms > 0) is REASONS[reason].retryable


@pytest.mark.parametrize("reason", REASONS)
def test_the_http_status_and_the_close_code_are_the_tables(reason: str) -> None:
    meaning = meaning_of(reason)
    assert (meaning.http_status, meaning.close_code) == (REASONS[reason].http_status, REASONS[reason].closes)


def test_the_close_codes_are_the_contracts_and_say_by_their_numbers_what_to_do() -> None:
    assert {int(code) for code in CloseCode} == CLOSE_CODES
    for reason, meant in REASONS.items():
        if meant.closes is not None:
            # 44xx: not before something changes, which is what a reason that no retry can help says too.
            assert (meant.closes // 100 == 44) is not meant.retryable, reason


def test_a_reason_that_a_newer_service_has_added_means_what_internal_means() -> None:
    assert meaning_of("A_REASON_OF_TOMORROW") == meaning_of("INTERNAL")
