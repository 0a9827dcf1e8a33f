"""Every kind of event, with any content: the same in every form that it has."""

import json

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.api.wire import ProtoCodec
from agent_service.api.wire_events import MONEY_DECIMALS, event_to_domain
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.bodies import KINDS
from tests.support.random_events import EVENT_CASES, agent_events
from ws_bridge.wire.events import PAYLOADS, event_json
from ws_bridge.wire.values import message_object, time_text, to_json

CODEC = ProtoCodec()
EACH = pytest.mark.parametrize("case", EVENT_CASES)
EXAMPLES = settings(max_examples=25)


@EACH
def test_the_fast_mapping_equals_the_one_by_descriptor(case: str) -> None:
    @EXAMPLES
    @given(agent_events(case))
    def holds(event: pb.AgentEvent) -> None:
        body = getattr(event, case)
        assert isinstance(body, Message)
        payload = json.loads(to_json(message_object(body)))
        assert json.loads(to_json(PAYLOADS[case](event))) == payload
        assert json.loads(event_json(event)) == {
            "type": case,
            "run_id": event.run_id,
            "thread_id": event.thread_id,
            "seq": event.seq,
            "attempt": event.attempt,
            "agent_name": event.agent_name,
            "timestamp": time_text(event.emit_time),
            "payload": payload,
        }

    holds()


@EACH
def test_the_engine_reads_what_it_writes(case: str) -> None:
    @EXAMPLES
    @given(agent_events(case))
    def holds(event: pb.AgentEvent) -> None:
        domain = event_to_domain(_sayable(event))
        assert type(domain.body) is KINDS[case]
        wire = pb.AgentEvent.FromString(CODEC.encode(domain))
        assert wire.WhichOneof("event") == case
        assert event_to_domain(wire) == domain
        assert CODEC.encode(event_to_domain(wire)) == CODEC.encode(domain)

    holds()


def _sayable(event: pb.AgentEvent) -> pb.AgentEvent:
    """Return the event with a value where nothing was said, and money with the contract's decimals."""
    body = getattr(event, event.WhichOneof("event") or "")
    for field in body.DESCRIPTOR.fields:
        if field.enum_type is not None and not getattr(body, field.name):
            setattr(body, field.name, field.enum_type.values[1].number)
        if field.message_type is pb.Usage.DESCRIPTOR:
            usage = getattr(body, field.name)
            usage.cost_usd = round(usage.cost_usd, MONEY_DECIMALS)
    return event


@given(st.sampled_from(list(EVENT_CASES)).flatmap(agent_events))
def test_an_event_of_any_kind_is_stored_as_it_was_sent(event: pb.AgentEvent) -> None:
    data = event.SerializeToString(deterministic=True)
    assert pb.AgentEvent.FromString(data).SerializeToString(deterministic=True) == data
