"""The grammar checker itself: a good run passes in both forms, and each rule broken alone is found and named."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest

from agent_service.engine.events import (
    AgentCompleted,
    AgentProgress,
    AgentStarted,
    AgentThinking,
    ApprovalDecision,
    ApprovalRequested,
    ApprovalResolved,
    ArtifactCreated,
    Body,
    CompletionStatus,
    Effect,
    Event,
    FinalResponse,
    PartialResult,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
)
from tests.support.bodies import body_to_json
from tests.support.grammar import GrammarViolationError, check_frames, check_run, event_frames

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DONE = AgentCompleted("supervisor", CompletionStatus.SUCCESS)
STOPPED = AgentCompleted("supervisor", CompletionStatus.CANCELLED)
ANSWER = FinalResponse("answer", "Hello world.", artifact_ids=("file",))
GOOD: Sequence[Body] = (
    AgentStarted("supervisor", "Message received.", "message"),
    AgentThinking("Hm."),
    PartialResult("answer", "Perhaps"),
    AgentProgress(ProgressStage.STEP, discard_partial=True),
    ToolExecuting("call", "tool", "Looks", {}, Effect.READ_ONLY),
    ArtifactCreated("file", "a.json", "application/json", 1),
    ToolCompleted("call", "tool", ToolStatus.SUCCESS),
    ApprovalRequested("approval", "tool", {}, "Because.", NOW),
    ApprovalResolved("approval", ApprovalDecision.REJECTED),
    PartialResult("answer", "Hello "),
    PartialResult("answer", "world."),
    ANSWER,
    DONE,
)
RESUMED = AgentProgress(ProgressStage.RESUMED)


def run_of(bodies: Sequence[Body]) -> list[Event]:
    return [Event("run", "thread", seq, 1, NOW, "data", body) for seq, body in enumerate(bodies, 1)]


def frames_of(events: Sequence[Event]) -> list[dict[str, object]]:
    frames: list[dict[str, object]] = []
    for event in events:
        payload = body_to_json(event.body)
        frames.append(
            {
                "type": payload.pop("type"),
                "run_id": event.run_id,
                "thread_id": event.thread_id,
                "seq": event.seq,
                "attempt": event.attempt,
                "agent_name": event.agent_name,
                "timestamp": event.emit_time.isoformat(),
                "payload": payload,
            }
        )
    return frames


def without(*places: int) -> list[Event]:
    return run_of([body for place, body in enumerate(GOOD) if place not in places])


def changed(place: int, body: Body) -> list[Event]:
    return run_of([*GOOD[:place], body, *GOOD[place + 1 :]])


def added(place: int, body: Body) -> list[Event]:
    return run_of([*GOOD[:place], body, *GOOD[place:]])


def enveloped(place: int, *, run_id: str = "run", thread_id: str = "thread", attempt: int = 1) -> list[Event]:
    events = run_of(GOOD)
    changed_event = msgspec.structs.replace(events[place], run_id=run_id, thread_id=thread_id, attempt=attempt)
    return [*events[:place], changed_event, *events[place + 1 :]]


def second_attempt(place: int, *bodies: Body) -> list[Event]:
    events = run_of([*GOOD[:place], *bodies])
    return [msgspec.structs.replace(event, attempt=1 if event.seq <= place else 2) for event in events]


BROKEN: dict[str, tuple[list[Event], str]] = {
    "nothing": ([], "at least its agent_started"),
    "gap": ([*run_of(GOOD)[:5], *run_of(GOOD)[6:]], "6 belongs here"),
    "repeat": ([*run_of(GOOD)[:5], *run_of(GOOD)[4:]], "6 belongs here"),
    "begins late": (run_of(GOOD)[1:], "1 belongs here"),
    "no start": (without(0), "agent_started is event 1"),
    "second start": (added(2, GOOD[0]), "agent_started is event 1"),
    "first attempt is not 1": (enveloped(0, attempt=2), "first attempt is 1"),
    "attempt goes back": ([*second_attempt(5, RESUMED), *run_of(GOOD)[6:]], "attempts never go back"),
    "attempt without a word": (second_attempt(5, GOOD[5]), "begins with agent_progress"),
    "other run": (enveloped(5, run_id="other"), "one run and one thread"),
    "other thread": (enveloped(5, thread_id="other"), "one run and one thread"),
    "no end": (run_of(GOOD[:11]), "ends with a terminal event"),
    "answer without an end": (without(12), "ends with a terminal event"),
    "two ends": (run_of([*GOOD, STOPPED]), "nothing follows the terminal event"),
    "word after the end": (run_of([*GOOD, GOOD[1]]), "nothing follows the terminal event"),
    "success without an answer": (without(11), "directly before agent_completed(SUCCESS)"),
    "cancelled with an answer": (changed(12, STOPPED), "directly before agent_completed(SUCCESS)"),
    "word after the answer": (added(12, GOOD[1]), "directly before agent_completed(SUCCESS)"),
    "tool without a thought": (without(1), "agent_thinking comes before the first tool"),
    "tool twice": (added(7, GOOD[4]), "one tool_executing per tool call"),
    "tool never ends": (without(6), "each tool_executing has its tool_completed"),
    "tool ends twice": (added(7, GOOD[6]), "call is none"),
    "tool ends before it begins": (without(4), "call is none"),
    "tool without an id": (changed(4, ToolExecuting("", "tool", "", {}, Effect.UNSAFE)), "has an id"),
    "tool of another name": (changed(6, ToolCompleted("call", "x", ToolStatus.ERROR)), "another tool"),
    "cancelled with an open tool": (run_of([*GOOD[:6], STOPPED]), "each tool_executing has"),
    "approval never resolved": (without(8), "each approval is resolved"),
    "approval twice": (added(9, GOOD[7]), "one request per approval"),
    "approval resolved twice": (added(9, GOOD[8]), "no open approval"),
    "piece missing": (without(9), "are the final content"),
    "nothing taken back": (without(3), "are the final content"),
    "other content": (changed(11, FinalResponse("answer", "Hello.")), "are the final content"),
    "other message": (changed(11, FinalResponse("other", "Hello world.")), "one message_id"),
    "other piece": (changed(10, PartialResult("other", "world.")), "one message_id"),
    "unknown artifact": (without(5), "artifact_ids name"),
}


def test_a_good_run_passes() -> None:
    check_run(run_of(GOOD))
    check_frames(frames_of(run_of(GOOD)))


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_rule_is_found_in_both_forms(name: str) -> None:
    events, rule = BROKEN[name]
    with pytest.raises(GrammarViolationError) as caught:
        check_run(events)
    assert rule in str(caught.value)
    with pytest.raises(GrammarViolationError) as caught:
        check_frames(frames_of(events))
    assert rule in str(caught.value)


def test_a_cut_stream_passes_where_it_may_end_anywhere() -> None:
    for length in range(1, len(GOOD)):
        check_run(run_of(GOOD[:length]), finished=False)


def test_a_new_attempt_may_begin_by_ending_the_run() -> None:
    check_run(second_attempt(5, GOOD[6], STOPPED))
    check_run(second_attempt(5, RESUMED, GOOD[6], STOPPED))


def test_a_frame_that_is_no_event_is_refused() -> None:
    with pytest.raises(GrammarViolationError, match="no event frame"):
        check_frames([{"type": "pong", "payload": {}}])


def test_event_frames_picks_one_run_out_of_a_socket() -> None:
    frames: list[dict[str, object]] = [{"type": "ack", "payload": {}}, *frames_of(run_of(GOOD)), {"type": "pong"}]
    assert event_frames(frames, "run") == frames[1:-1]
    assert event_frames(frames, "other") == []
