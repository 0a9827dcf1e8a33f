import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.api.wire import ProtoCodec
from agent_service.api.wire_commands import MAX_CONTEXT_BYTES, command_to_domain
from agent_service.api.wire_events import BODY_READERS
from agent_service.api.wire_values import MAX_EXACT_INTEGER, EnumMap, from_struct, to_struct
from agent_service.engine.commands import Reference, RunCommand, RunSettings
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import (
    AgentCompleted,
    AgentError,
    AgentHandoff,
    AgentProgress,
    AgentStarted,
    AgentThinking,
    AnswerSource,
    ApprovalDecision,
    ApprovalRequested,
    ApprovalResolved,
    ArtifactCreated,
    Body,
    CompletionStatus,
    Effect,
    Event,
    FinalResponse,
    JsonObject,
    PartialResult,
    PlannedStep,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
    Usage,
)
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.records import ThreadConflict

CODEC = ProtoCodec()
NOW = datetime(2026, 11, 21, 3, 4, 5, 678901, UTC)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
count = st.integers(0, 2**32 - 1)
from_one = st.integers(1, 2**32 - 1)
long = st.integers(0, MAX_EXACT_INTEGER)
share = st.floats(0, 1)
texts = st.lists(text, max_size=3).map(tuple)
times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
numbers = st.integers(-MAX_EXACT_INTEGER, MAX_EXACT_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | text | numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
json_objects = st.dictionaries(text, json_values, max_size=4)
usages = st.builds(
    Usage, long, long, long, count, count, st.integers(0, 10**9).map(lambda micros: round(micros / 1e6, 6))
)
bodies: Mapping[str, st.SearchStrategy[Body]] = {
    "agent_started": st.builds(AgentStarted, text, text, text),
    "agent_progress": st.builds(
        AgentProgress,
        st.sampled_from(ProgressStage),
        text,
        count,
        count,
        share,
        count,
        text,
        text,
        share,
        st.lists(st.builds(PlannedStep, text, text), max_size=3).map(tuple),
        st.booleans(),
    ),
    "agent_thinking": st.builds(AgentThinking, text, count, count),
    "agent_handoff": st.builds(AgentHandoff, text, text, text),
    "tool_executing": st.builds(ToolExecuting, text, text, text, json_objects, st.sampled_from(Effect)),
    "tool_completed": st.builds(
        ToolCompleted, text, text, st.sampled_from(ToolStatus), text, st.none() | json_objects, text, text, long
    ),
    "partial_result": st.builds(PartialResult, text, text),
    "artifact_created": st.builds(ArtifactCreated, text, text, text, long, text),
    "approval_requested": st.builds(ApprovalRequested, text, text, json_objects, text, times),
    "approval_resolved": st.builds(ApprovalResolved, text, st.sampled_from(ApprovalDecision), text, text),
    "final_response": st.builds(
        FinalResponse, text, text, st.sampled_from(AnswerSource), st.booleans(), texts, texts, texts
    ),
    "agent_completed": st.builds(AgentCompleted, text, st.sampled_from(CompletionStatus), text, long, usages),
    "agent_error": st.builds(AgentError, st.sampled_from(ErrorReason), text, text, st.booleans(), texts, long, usages),
}
events = st.builds(Event, text, text, from_one, from_one, times, text, st.one_of(*bodies.values()))
commands = st.builds(
    RunCommand,
    text,
    text.map(str.lower),
    text.map(str.lower),
    text,
    json_objects,
    st.builds(
        RunSettings,
        text,
        st.none() | st.floats(0, 2),
        st.none() | count,
        st.none() | st.integers(1, 240_000),
        st.none() | st.floats(0, 1000),
        st.booleans(),
        st.booleans(),
    ),
    st.lists(
        st.builds(Reference, st.just("f"))
        | st.builds(Reference, message_id=st.just("m"))
        | st.builds(Reference, corpus_id=st.just("c")),
        max_size=3,
    ).map(tuple),
    st.sampled_from(ThreadConflict),
)


def test_every_case_of_the_contract_is_mapped_both_ways() -> None:
    cases = [field.name for field in pb.AgentEvent.DESCRIPTOR.oneofs_by_name["event"].fields]
    assert list(BODY_READERS) == cases
    assert list(bodies) == cases


@given(events)
def test_an_event_comes_back_equal(event: Event) -> None:
    assert CODEC.decode(CODEC.encode(event)) == event


@pytest.mark.parametrize("case", list(bodies))
def test_a_body_travels_as_its_case(case: str) -> None:
    @given(bodies[case])
    def holds(body: Body) -> None:
        wire = pb.AgentEvent.FromString(CODEC.encode(Event("r", "t", 1, 1, NOW, "data", body)))
        assert wire.WhichOneof("event") == case

    holds()


@given(events)
def test_the_bytes_are_those_that_protobuf_itself_writes(event: Event) -> None:
    data = CODEC.encode(event)
    assert pb.AgentEvent.FromString(data).SerializeToString(deterministic=True) == data


def test_a_time_before_1970_is_written_as_protobuf_does() -> None:
    event = Event("r", "t", 1, 1, datetime(1969, 12, 31, 23, 59, 58, 250_000, UTC), "data", AgentThinking("x"))
    assert CODEC.decode(CODEC.encode(event)) == event


@given(events)
def test_the_same_event_is_the_same_bytes(event: Event) -> None:
    assert CODEC.encode(event) == CODEC.encode(CODEC.decode(CODEC.encode(event)))


def test_the_order_of_keys_does_not_change_the_bytes() -> None:
    def encoded(arguments: JsonObject) -> bytes:
        return CODEC.encode(Event("r", "t", 1, 1, NOW, "data", ToolExecuting("c", "t", "", arguments, Effect.UNSAFE)))

    keys = [f"key{number}" for number in range(50)]
    assert encoded(dict.fromkeys(keys, 1)) == encoded(dict.fromkeys(reversed(keys), 1))


def test_empty_and_missing_results_differ() -> None:
    results: list[JsonObject | None] = [None, {}]
    for result in results:
        event = Event("r", "t", 1, 1, NOW, "data", ToolCompleted("c", "t", ToolStatus.SUCCESS, result=result))
        body = CODEC.decode(CODEC.encode(event)).body
        assert isinstance(body, ToolCompleted)
        assert body.result == result


def test_money_has_six_decimals() -> None:
    event = Event(
        "r", "t", 1, 1, NOW, "data", AgentCompleted("a", CompletionStatus.SUCCESS, usage=Usage(cost_usd=1 / 3))
    )
    assert pb.AgentEvent.FromString(CODEC.encode(event)).agent_completed.usage.cost_usd == 0.333333


def test_a_time_of_another_zone_is_the_same_instant() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    event = Event("r", "t", 1, 1, elsewhere, "data", AgentThinking("x"))
    decoded = CODEC.decode(CODEC.encode(event))
    assert decoded.emit_time == NOW
    assert decoded.emit_time.tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MAX_EXACT_INTEGER, MAX_EXACT_INTEGER),
        (-MAX_EXACT_INTEGER, -MAX_EXACT_INTEGER),
        (MAX_EXACT_INTEGER + 1, str(MAX_EXACT_INTEGER + 1)),
        (math.inf, "inf"),
        (math.nan, "nan"),
        (2.0, 2),
        (2.5, 2.5),
        (1e300, 1e300),
        ((1, 2), [1, 2]),
        (True, True),
    ],
)
def test_numbers_of_a_struct(value: float | tuple[int, ...], expected: object) -> None:
    back = from_struct(to_struct({"value": value}))["value"]
    assert back == expected
    assert type(back) is type(expected)


def test_a_value_without_a_kind_is_null() -> None:
    struct = to_struct({})
    struct.fields["nothing"].Clear()
    assert from_struct(struct) == {"nothing": None}


@given(commands)
def test_a_command_comes_back_equal(command: RunCommand) -> None:
    assert CODEC.decode_command(CODEC.encode_command(command)) == command


def test_what_a_caller_leaves_out_has_its_default() -> None:
    assert command_to_domain(pb.RunAgentRequest(content="hello")) == RunCommand("hello")


def test_ids_become_lower_case() -> None:
    command = command_to_domain(pb.RunAgentRequest(content="x", thread_id="AB", client_message_id="CD"))
    assert (command.thread_id, command.client_message_id) == ("ab", "cd")


def test_a_context_has_a_bounded_size() -> None:
    def sized(characters: int) -> pb.RunAgentRequest:
        request = pb.RunAgentRequest(content="x")
        request.context["key"] = "y" * characters
        return request

    overhead = sized(20_000).context.ByteSize() - 20_000
    fits, too_large = sized(MAX_CONTEXT_BYTES - overhead), sized(MAX_CONTEXT_BYTES - overhead + 1)
    assert fits.context.ByteSize() == MAX_CONTEXT_BYTES
    command_to_domain(fits)
    with pytest.raises(ApexError) as failure:
        command_to_domain(too_large)
    assert failure.value.reason is ErrorReason.INVALID_ARGUMENT
    assert failure.value.violations[0].field == "context"


class Half(StrEnum):
    COMPUTED = "computed"


def test_an_enum_without_its_twin_is_refused() -> None:
    with pytest.raises(TypeError, match="ANSWER_SOURCE_CACHE"):
        EnumMap(Half, pb.AnswerSource, "ANSWER_SOURCE")
    with pytest.raises(ValueError, match="TOOL_STATUS_COMPUTED"):
        EnumMap(Half, pb.ToolStatus, "TOOL_STATUS")
