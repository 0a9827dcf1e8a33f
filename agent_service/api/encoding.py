"""Events as bytes: the envelope written by hand, the body by protobuf, but for the one kind of which there are most.

The bytes are those that protobuf itself would write: fields in the order of their numbers, none that has its default.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from agent_service.api.framing import bytes_field, tag, varint
from agent_service.api.wire_events import fill_body
from agent_service.engine.events import Event, PartialResult
from generated.apex.agent.v1 import agent_pb2 as pb

CACHED_HEADS: Final = 4_096
"""How many runs' heads are kept, so that they are made once for many events."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S: Final = 86_400
_VARINT: Final = 0
_RUN_ID: Final = tag(pb.AgentEvent.RUN_ID_FIELD_NUMBER)
_THREAD_ID: Final = tag(pb.AgentEvent.THREAD_ID_FIELD_NUMBER)
_SEQ: Final = tag(pb.AgentEvent.SEQ_FIELD_NUMBER, _VARINT)
_ATTEMPT: Final = tag(pb.AgentEvent.ATTEMPT_FIELD_NUMBER, _VARINT)
_EMIT_TIME: Final = tag(pb.AgentEvent.EMIT_TIME_FIELD_NUMBER)
_SECONDS, _NANOS = tag(1, _VARINT), tag(2, _VARINT)
_AGENT_NAME: Final = tag(pb.AgentEvent.AGENT_NAME_FIELD_NUMBER)
_PARTIAL_RESULT: Final = tag(pb.AgentEvent.PARTIAL_RESULT_FIELD_NUMBER)
_MESSAGE_ID: Final = tag(pb.PartialResult.MESSAGE_ID_FIELD_NUMBER)
_TEXT: Final = tag(pb.PartialResult.TEXT_FIELD_NUMBER)


class EventEncoder:
    """Encodes deterministically: the same event gives the same bytes."""

    def __init__(self) -> None:
        # The parts that are the same for many events of a run.
        self._head = lru_cache(CACHED_HEADS)(_head)
        self._second = lru_cache(1)(_second)
        self._middle = lru_cache(CACHED_HEADS)(_middle)
        self._message_id = lru_cache(CACHED_HEADS)(_message_id)

    def encode(self, event: Event) -> bytes:
        """Return the event as `apex.agent.v1.AgentEvent`."""
        since = event.emit_time - _EPOCH
        time = self._second(since.days * _DAY_S + since.seconds)
        if since.microseconds:
            time += _NANOS + varint(since.microseconds * 1000)
        body = event.body
        return b"".join(
            (
                self._head(event.run_id, event.thread_id),
                _SEQ,
                varint(event.seq),
                self._middle(event.attempt, len(time)),
                time,
                _string(_AGENT_NAME, event.agent_name),
                self._partial(body) if isinstance(body, PartialResult) else _body(event),
            )
        )

    def _partial(self, body: PartialResult) -> bytes:
        return bytes_field(_PARTIAL_RESULT, self._message_id(body.message_id) + _string(_TEXT, body.text))


def _string(field_tag: bytes, text: str) -> bytes:
    return bytes_field(field_tag, text.encode()) if text else b""


def _head(run_id: str, thread_id: str) -> bytes:
    return _string(_RUN_ID, run_id) + _string(_THREAD_ID, thread_id)


def _middle(attempt: int, time_bytes: int) -> bytes:
    """Return what stands between seq and time: the attempt, and that a time of this length follows."""
    return _ATTEMPT + varint(attempt) + _EMIT_TIME + varint(time_bytes)


def _second(seconds: int) -> bytes:
    # A negative number is written as its two's complement of 64 bits.
    return _SECONDS + varint(seconds % (1 << 64)) if seconds else b""


def _message_id(message_id: str) -> bytes:
    return _string(_MESSAGE_ID, message_id)


def _body(event: Event) -> bytes:
    """Return any other body in its case."""
    wire = pb.AgentEvent()
    fill_body(wire, event.body)
    return wire.SerializeToString(deterministic=True)
