"""The small parts at their edges: reasons, streams, outbox, who may wait without a sign-in."""

import pytest

from agent_service.engine.run import RETRYABLE_REASONS
from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge.close_codes import MEANINGS, CloseCode, Reason, meaning_of
from ws_bridge.effects import Unwatch, WatchRun
from ws_bridge.frames import Failure, Violation
from ws_bridge.outbox import Outbox, OutboxLimits
from ws_bridge.sockets import MAX_UNSIGNED, MAX_UNSIGNED_PER_ADDRESS, Unsigned
from ws_bridge.streams import MAX_FINISHED, MAX_STREAMS, Streams
from ws_bridge.wire.errors import in_upload_terms


def test_every_reason_of_the_contract_has_a_meaning() -> None:
    names = {str(value.name).removeprefix("ERROR_REASON_") for value in pb.ErrorReason.DESCRIPTOR.values}
    assert names - {"UNSPECIFIED"} == {reason.value for reason in Reason} == set(MEANINGS)


def test_both_processes_agree_on_what_to_try_again() -> None:
    assert {reason for reason, meaning in MEANINGS.items() if meaning.retryable} == {r.value for r in RETRYABLE_REASONS}


def test_a_reason_of_a_newer_service_is_a_defect() -> None:
    assert meaning_of("ON_HOLIDAY") == meaning_of("INTERNAL")


@pytest.mark.parametrize("code", CloseCode)
def test_a_close_code_says_what_to_do(code: CloseCode) -> None:
    group = code // 100
    assert group in {10, 40, 41, 44}
    for reason, meaning in MEANINGS.items():
        if meaning.close_code is code and group == 44:
            assert not meaning.retryable, reason
        if meaning.close_code is code and group == 41:
            assert meaning.retryable, reason


def test_a_socket_streams_only_so_many_runs() -> None:
    streams = Streams()
    for number in range(MAX_STREAMS):
        assert not streams.full
        assert streams.start(f"run-{number}", 0) == [WatchRun(str(number + 1), f"run-{number}", 0)]
    assert streams.full
    assert streams.take("1", 1, 1, terminal=True) == 1
    assert not streams.full


def test_finished_runs_are_remembered_up_to_a_number() -> None:
    streams = Streams()
    for number in range(MAX_FINISHED + 1):
        streams.start(f"run-{number}", 0)
        streams.take(str(number + 1), 1, 1, terminal=True)
    assert not streams.knows("run-0")
    assert streams.knows("run-1")
    assert streams.knows(f"run-{MAX_FINISHED}")


def test_a_stream_that_waits_is_not_unwatched_again() -> None:
    streams = Streams()
    streams.start("run", 0)
    streams.retry_later("1", 100)
    assert streams.due(99) == []
    assert streams.start("run", 5) == [WatchRun("2", "run", 5)]
    assert streams.due(100) == []
    assert streams.start("run", 6) == [Unwatch("2"), WatchRun("3", "run", 6)]


def test_events_are_counted_by_the_batch_and_the_socket_gets_the_new_ones() -> None:
    streams = Streams()
    streams.start("run", 5)
    assert streams.take("1", 7, 2, terminal=False) is None
    assert streams.take("1", 4, 2, terminal=False) == 0
    assert streams.take("1", 4, 4, terminal=False) == 2
    assert streams.take("1", 8, 3, terminal=True) == 3
    assert streams.take("1", 11, 1, terminal=False) == 0
    assert not streams.streams("run")


def test_an_outbox_is_bounded_in_frames_and_bytes() -> None:
    frames = Outbox(OutboxLimits(max_frames=2, max_bytes=100))
    assert [frames.put([b"x"]) for _ in range(3)] == [True, True, False]
    data = Outbox(OutboxLimits(max_frames=100, max_bytes=10))
    assert [data.put([b"x" * 5]), data.put([b"x" * 5]), data.put([b"x"])] == [True, True, False]
    assert data.take(1) == [b"xxxxx"]
    assert data.put([b"x" * 5])
    assert not data.put([b"x"])


def test_an_outbox_gives_as_much_at_once_as_fits() -> None:
    outbox = Outbox(OutboxLimits())
    outbox.put([b"11111", b"22222"])
    outbox.put([b"3"])
    assert outbox.take(10) == [b"11111", b"22222"]
    assert outbox.take(10) == [b"3"]
    assert outbox.take(10) == []


def test_what_is_larger_than_the_outbox_passes_alone() -> None:
    outbox = Outbox(OutboxLimits(max_frames=2, max_bytes=10))
    assert outbox.put([b"x" * 11])
    assert not outbox.put([b"x"])
    assert outbox.take(1) == [b"x" * 11]
    assert outbox.put([b"1", b"2", b"3"])
    assert not outbox.put([b"4"])
    assert outbox.take(1) == [b"1"]


def test_a_cleared_outbox_is_empty_and_takes_more() -> None:
    outbox = Outbox(OutboxLimits(max_frames=1, max_bytes=10))
    outbox.put([b"x"])
    outbox.clear()
    assert not outbox
    assert outbox.put([b"y"])
    assert outbox.take(10) == [b"y"]


def test_sockets_without_a_sign_in_are_bounded() -> None:
    unsigned = Unsigned()
    assert all(unsigned.admit("a") for _ in range(MAX_UNSIGNED_PER_ADDRESS))
    assert not unsigned.admit("a")
    for number in range(MAX_UNSIGNED - MAX_UNSIGNED_PER_ADDRESS):
        assert unsigned.admit(f"other-{number}")
    assert not unsigned.admit("new")
    unsigned.release("a")
    assert unsigned.admit("new")


def test_an_upload_knows_its_form_only() -> None:
    broken = (Violation("metadata.name", "must be shorter"),)
    failure = Failure(Reason.INVALID_ARGUMENT, "Not valid: metadata.name: must be shorter.", "e-1", 5, broken)
    told = (Violation("file", "must be shorter"),)
    expected = Failure(Reason.INVALID_ARGUMENT, "Not valid: file: must be shorter.", "e-1", 5, told)
    assert in_upload_terms(failure) == expected
