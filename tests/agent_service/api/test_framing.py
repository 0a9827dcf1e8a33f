from hypothesis import given
from hypothesis import strategies as st

from agent_service.api.framing import EventFramer, item_frame, varint
from generated.apex.agent.v1 import agent_pb2 as pb

short = st.text("abc-é", max_size=40)


@given(short, short, st.integers(0, 100_000), st.integers(0, 2**32 - 1))
def test_a_framed_event_is_what_protobuf_would_write(session_id: str, watch_id: str, length: int, seq: int) -> None:
    event = pb.AgentEvent(run_id="r", seq=seq, partial_result=pb.PartialResult(text="x" * length))
    item = pb.AttachResponse.Item(session_id=session_id, watch_id=watch_id, event=event)
    framed = EventFramer(session_id, watch_id).frame(event.SerializeToString())
    assert framed == pb.AttachResponse(items=[item]).SerializeToString()
    assert item_frame(item) == framed


@given(st.lists(short, max_size=5))
def test_frames_join_to_a_response(ids: list[str]) -> None:
    items = [pb.AttachResponse.Item(session_id=session_id, session_probe=pb.SessionProbe()) for session_id in ids]
    joined = b"".join(item_frame(item) for item in items)
    assert pb.AttachResponse.FromString(joined) == pb.AttachResponse(items=items)


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_protobufs(number: int) -> None:
    assert b"\x08" + varint(number) == pb.SessionProbe(timeout_ms=_signed(number)).SerializeToString() or number == 0


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
