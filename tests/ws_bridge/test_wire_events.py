"""Events → frames: every kind as a golden file, and the hand-written mapping against the one by descriptor."""

import json
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.random_events import agent_events
from ws_bridge.wire import events as wire
from ws_bridge.wire.values import MAX_EXACT_INTEGER, message_object, struct_object, struct_of, time_text, to_json

GOLDEN = Path(__file__).parent / "golden"
RUN = "01900000-0000-7000-8000-000000000001"
THREAD = "01900000-0000-7000-8000-0000000000aa"
MESSAGE = "01900000-0000-7000-8000-0000000000bb"
ARGS = struct_of(
    {
        "path": "usage.csv",
        "limit": 10.0,
        "ratio": 0.25,
        "exact": float(MAX_EXACT_INTEGER),
        "large": 1e20,
        "flags": [True, None, {"z": 1, "a": []}],
        "none": None,
        "secret": "[redacted]",
    }
)
USAGE = pb.Usage(
    input_tokens=12_345, output_tokens=678, cached_tokens=9, model_requests=3, tool_calls=2, cost_usd=0.000123
)
EXPIRES = Timestamp(seconds=1_795_254_600)

EVENTS = {
    "agent_started": pb.AgentEvent(
        agent_started=pb.AgentStarted(agent_id="a-1", message='Say "hi" to Zoë ☂', user_message_id=MESSAGE)
    ),
    "agent_progress": pb.AgentEvent(
        agent_progress=pb.AgentProgress(
            stage=pb.PROGRESS_STAGE_PLANNED,
            message="Two steps.",
            step=1,
            total_steps=2,
            fraction=0.5,
            queue_position=3,
            tool_call_id="1.1",
            intent="cost_analysis",
            confidence=0.875,
            planned_steps=[pb.PlannedStep(agent_name="data", description="Measure")],
            discard_partial=True,
        )
    ),
    "agent_progress.defaults": pb.AgentEvent(agent_progress=pb.AgentProgress(stage=pb.PROGRESS_STAGE_QUEUED)),
    "agent_thinking": pb.AgentEvent(agent_thinking=pb.AgentThinking(thought="Hm.\nLet me see.", step=1, total_steps=2)),
    "agent_handoff": pb.AgentEvent(
        agent_handoff=pb.AgentHandoff(from_agent="supervisor", to_agent="triage", reason="Costs.")
    ),
    "tool_executing": pb.AgentEvent(
        tool_executing=pb.ToolExecuting(
            tool_call_id="1.1",
            tool_name="usage_summary",
            description="Sum it up",
            tool_args=ARGS,
            effect=pb.TOOL_EFFECT_READ_ONLY,
        )
    ),
    "tool_completed": pb.AgentEvent(
        tool_completed=pb.ToolCompleted(
            tool_call_id="1.1",
            tool_name="usage_summary",
            status=pb.TOOL_STATUS_SUCCESS,
            result_summary="19,366 requests",
            result=ARGS,
            artifact_id=MESSAGE,
            execution_time_ms=1234,
        )
    ),
    "tool_completed.failed": pb.AgentEvent(
        tool_completed=pb.ToolCompleted(
            tool_call_id="1.1", tool_name="usage_summary", status=pb.TOOL_STATUS_OUTCOME_UNKNOWN, error="Lost."
        )
    ),
    "partial_result": pb.AgentEvent(partial_result=pb.PartialResult(message_id=MESSAGE, text="**Costs**\n")),
    "artifact_created": pb.AgentEvent(
        artifact_created=pb.ArtifactCreated(
            artifact_id=MESSAGE, name="chart.svg", media_type="image/svg+xml", size_bytes=2**40, description="Costs"
        )
    ),
    "approval_requested": pb.AgentEvent(
        approval_requested=pb.ApprovalRequested(
            approval_id=MESSAGE, tool_name="apply_policy", tool_args=ARGS, reason="It posts.", expire_time=EXPIRES
        )
    ),
    "approval_resolved": pb.AgentEvent(
        approval_resolved=pb.ApprovalResolved(
            approval_id=MESSAGE, decision=pb.APPROVAL_DECISION_APPROVED, decided_by="alice", comment="Go."
        )
    ),
    "final_response": pb.AgentEvent(
        final_response=pb.FinalResponse(
            message_id=MESSAGE,
            content="# Costs",
            source=pb.ANSWER_SOURCE_CACHE,
            degraded=True,
            missing_data=["model"],
            suggestions=["assume gpt-4o"],
            artifact_ids=[MESSAGE],
        )
    ),
    "agent_completed": pb.AgentEvent(
        agent_completed=pb.AgentCompleted(
            agent_id="a-1",
            status=pb.COMPLETION_STATUS_SUCCESS,
            message="Done.",
            execution_time_ms=MAX_EXACT_INTEGER,
            usage=USAGE,
        )
    ),
    "agent_error": pb.AgentEvent(
        agent_error=pb.AgentError(
            reason=pb.ERROR_REASON_MODEL_UNAVAILABLE,
            error_id="e-1",
            message="No model answers.",
            retryable=True,
            recovery_suggestions=["Try again."],
            execution_time_ms=5,
        )
    ),
    "unknown_event": pb.AgentEvent(),
}


def enveloped(event: pb.AgentEvent) -> pb.AgentEvent:
    whole = pb.AgentEvent(run_id=RUN, thread_id=THREAD, seq=7, attempt=1, agent_name="data")
    whole.emit_time.FromJsonString("2026-11-21T08:30:00.000042Z")
    whole.MergeFrom(event)
    return whole


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_this_text(name: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / f"{name}.json"
    text = wire.event_json(enveloped(EVENTS[name])).decode()

    if request.config.getoption("--update-scenarios"):
        path.write_text(json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n")
    assert json.loads(text) == json.loads(path.read_text())
    assert list(json.loads(text)) == list(json.loads(path.read_text()))


def test_every_kind_of_event_has_a_golden_file() -> None:
    cases = {field.name for field in pb.AgentEvent.DESCRIPTOR.oneofs_by_name["event"].fields}

    assert cases <= {path.stem for path in GOLDEN.glob("*.json")}
    assert {path.stem for path in GOLDEN.glob("*.json")} == EVENTS.keys()


@given(agent_events())
def test_the_fast_mapping_equals_the_one_by_descriptor(event: pb.AgentEvent) -> None:
    case = event.WhichOneof("event")
    assert case is not None
    frame = json.loads(wire.event_json(event))

    assert frame["type"] == case
    assert frame["payload"] == json.loads(to_json(message_object(getattr(event, case))))
    assert frame["timestamp"] == time_text(event.emit_time)


@given(agent_events())
def test_a_frame_is_json_that_depends_on_the_event_alone(event: pb.AgentEvent) -> None:
    again = pb.AgentEvent.FromString(event.SerializeToString())

    assert wire.event_json(again) == wire.event_json(event)
    assert json.loads(wire.event_json(event))["seq"] == event.seq
    assert wire.is_terminal(event) == (event.WhichOneof("event") in {"agent_completed", "agent_error"})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_integral_doubles_are_integers_as_far_as_json_carries_them(value: float) -> None:
    shown = struct_object(struct_of({"value": value}))["value"]

    assert shown == value
    assert isinstance(shown, int) == (value.is_integer() and abs(value) <= MAX_EXACT_INTEGER)


def test_what_json_cannot_say_is_null() -> None:
    assert struct_object(struct_of({"a": float("nan"), "b": float("inf")})) == {"a": None, "b": None}


def test_a_value_newer_than_this_bridge_is_its_number() -> None:
    event = enveloped(pb.AgentEvent(agent_progress=pb.AgentProgress()))
    event.agent_progress.MergeFromString(b"\x08\x63")  # stage = 99

    assert json.loads(wire.event_json(event))["payload"]["stage"] == "99"


def test_a_text_is_made_once_for_all_watchers_and_the_memory_is_bounded() -> None:
    texts = wire.EventTexts()
    first = enveloped(EVENTS["partial_result"])
    same = pb.AgentEvent.FromString(first.SerializeToString())
    (made,) = texts.json([first])
    assert texts.json([same])[0] is made

    for seq in range(8, 8 + wire.MAX_KEPT_TEXTS):
        first.seq = seq
        texts.json([first])
    assert texts.json([same])[0] is not made
    assert texts.json([same]) == [made]


def test_batches_with_the_same_beginning_share_it() -> None:
    texts = wire.EventTexts()
    events = [enveloped(EVENTS["partial_result"]) for _ in range(4)]
    for number, event in enumerate(events):
        event.seq += number
    two = texts.json(events[:2])
    four = texts.json(events)
    assert [made is again for made, again in zip(two, four, strict=False)] == [True, True]
    assert texts.json(events[:3]) == four[:3] == [wire.event_json(event) for event in events[:3]]
    assert texts.json(events[:3])[2] is four[2]


def test_large_texts_are_kept_up_to_a_sum() -> None:
    texts = wire.EventTexts()
    event = enveloped(EVENTS["final_response"])
    event.final_response.content = "x" * 400_000
    (made,) = texts.json([event])
    assert texts.json([event])[0] is made
    for seq in range(100, 112):
        event.seq = seq
        texts.json([event])
    event.seq = 7
    assert texts.json([event])[0] is not made
