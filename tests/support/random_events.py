"""Events as hypothesis strategies: any content that the wire can carry, valid or not."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge.wire.values import struct_of

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
UINT32 = st.integers(0, 2**32 - 1)
EXACT = st.integers(0, 2**53 - 1)
DOUBLE = st.floats(0, 1e9)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
STRUCT: st.SearchStrategy[Struct] = st.dictionaries(TEXT, JSON, max_size=4).map(struct_of)
TIME = st.builds(
    lambda seconds, micros: Timestamp(seconds=seconds, nanos=micros * 1000),
    st.integers(-62_135_596_800, 253_402_300_799),
    st.integers(0, 999_999),
)
USAGE = st.builds(
    pb.Usage,
    input_tokens=EXACT,
    output_tokens=EXACT,
    cached_tokens=EXACT,
    model_requests=UINT32,
    tool_calls=UINT32,
    cost_usd=DOUBLE,
)
STEP = st.builds(pb.PlannedStep, agent_name=TEXT, description=TEXT)
TEXTS = st.lists(TEXT, max_size=3)

_FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    "planned_steps": st.lists(STEP, max_size=3),
    "missing_data": TEXTS,
    "suggestions": TEXTS,
    "artifact_ids": TEXTS,
    "recovery_suggestions": TEXTS,
    "tool_args": st.none() | STRUCT,
    "result": st.none() | STRUCT,
    "usage": st.none() | USAGE,
    "expire_time": st.none() | TIME,
}


def _field(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """A strategy for a field by its descriptor; a kind that is not known here fails, so that no field is left out."""
    if field.name in _FIELDS:
        return _FIELDS[field.name]
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    kinds: dict[int, st.SearchStrategy[Any]] = {
        FieldDescriptor.TYPE_STRING: TEXT,
        FieldDescriptor.TYPE_UINT32: UINT32,
        FieldDescriptor.TYPE_INT64: EXACT,
        FieldDescriptor.TYPE_DOUBLE: DOUBLE,
        FieldDescriptor.TYPE_BOOL: st.booleans(),
    }
    return kinds[field.type]


def _body(case: FieldDescriptor) -> st.SearchStrategy[pb.AgentEvent]:
    kind = case.message_type
    assert kind is not None

    def make(values: dict[str, Any]) -> pb.AgentEvent:
        return pb.AgentEvent(**{case.name: getattr(pb, kind.name)(**values)})

    return st.fixed_dictionaries({field.name: _field(field) for field in kind.fields}).map(make)


EVENT_CASES: Mapping[str, FieldDescriptor] = {
    case.name: case for case in pb.AgentEvent.DESCRIPTOR.oneofs_by_name["event"].fields
}


def agent_events(*cases: str) -> st.SearchStrategy[pb.AgentEvent]:
    """Any event of these cases; of every case if none is named."""

    def whole(body: pb.AgentEvent, ids: tuple[str, str, str], seq: int, attempt: int, time: Timestamp) -> pb.AgentEvent:
        event = pb.AgentEvent(
            run_id=ids[0], thread_id=ids[1], agent_name=ids[2], seq=seq, attempt=attempt, emit_time=time
        )
        event.MergeFrom(body)
        return event

    bodies = st.one_of([_body(EVENT_CASES[name]) for name in cases or EVENT_CASES])
    return st.builds(whole, bodies, st.tuples(TEXT, TEXT, TEXT), UINT32, UINT32, TIME)
