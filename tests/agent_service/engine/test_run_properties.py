"""Whatever `RunState` lets through, the run that comes of it obeys the contract's grammar."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.api.wire import ProtoCodec
from agent_service.engine.errors import ApexError, ErrorReason, GrammarError
from agent_service.engine.events import (
    AgentCompleted,
    AgentError,
    AgentHandoff,
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
    Usage,
)
from agent_service.engine.run import RunState
from tests.support.grammar import check_run

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STARTED = AgentStarted("supervisor", "Message received.", "message-1")

ids = st.sampled_from("abc")
texts = st.sampled_from(["", "one ", "two ", "three"])
message_ids = st.sampled_from(["answer-1"] * 9 + ["answer-2"])

bodies: st.SearchStrategy[Body] = st.one_of(
    st.just(STARTED),
    st.builds(AgentThinking, texts),
    st.builds(AgentHandoff, texts, texts, texts),
    st.builds(AgentProgress, st.sampled_from(ProgressStage), discard_partial=st.booleans()),
    st.builds(ToolExecuting, ids, st.just("tool"), texts, st.just({}), st.sampled_from(Effect)),
    st.builds(ToolCompleted, ids, st.just("tool"), st.sampled_from(ToolStatus)),
    st.builds(PartialResult, message_ids, texts),
    st.builds(ArtifactCreated, ids, texts, texts, st.just(1)),
    st.builds(ApprovalRequested, ids, st.just("tool"), st.just({}), texts, st.just(NOW)),
    st.builds(ApprovalResolved, ids, st.sampled_from(ApprovalDecision)),
    st.builds(FinalResponse, message_ids, texts),
    st.builds(AgentCompleted, texts, st.sampled_from(CompletionStatus)),
    st.builds(AgentError, st.just(ErrorReason.INTERNAL), texts, texts, st.booleans()),
)
RESUME = None
inputs = st.lists(st.one_of(bodies, bodies, bodies, st.just(RESUME)), max_size=40)
closings = st.sampled_from(["complete", "cancel", "fail"])


def play(steps: list[Body | None]) -> tuple[RunState, list[Event]]:
    """Return what is accepted of the steps, by workers that follow one another."""
    state = RunState("run-1", "thread-1")
    events = [state.next(NOW, "supervisor", STARTED)]
    for step in steps:
        if step is RESUME and not state.ended:
            events += resumed(state, events)
            state = folded(events, state.attempt + 1)
        elif step is not RESUME:
            try:
                events.append(state.next(NOW, "data", step))
            except GrammarError:
                continue
    return state, events


def folded(events: list[Event], attempt: int) -> RunState:
    """Return what another worker makes of the log."""
    codec = ProtoCodec()
    state = RunState("run-1", "thread-1")
    for event in events:
        state.apply(codec.decode(codec.encode(event)))
    state.attempt = attempt
    return state


def resumed(state: RunState, events: list[Event]) -> list[Event]:
    """Return what the next worker says first; nothing when the answer is given and only the end is missing."""
    heir = folded(events, state.attempt + 1)
    try:
        with heir.all_or_nothing():
            return heir.resume(NOW)
    except GrammarError:
        return []


def close(state: RunState, closing: str, content: str) -> list[Event]:
    usage = Usage()
    try:
        with state.all_or_nothing():
            if closing == "complete":
                return state.complete(NOW, FinalResponse(state.message_id or "answer-1", content), 1, usage)
            if closing == "cancel":
                return state.cancel(NOW, "Stopped.", 1, usage)
            return state.fail(NOW, ApexError(ErrorReason.INTERNAL, "No."), "error-1", 1, usage)
    except GrammarError:
        return []


@given(inputs, closings, texts)
def test_what_is_accepted_and_closed_obeys_the_grammar(steps: list[Body | None], closing: str, rest: str) -> None:
    state, events = play(steps)
    if not state.ended:
        events += close(state, closing, state.text + rest) or close(state, "cancel", "")
    check_run(events, finished=state.ended)


@given(inputs)
def test_a_run_can_always_be_cancelled_and_failed_unless_its_answer_is_given(steps: list[Body | None]) -> None:
    state, events = play(steps)
    if state.ended or isinstance(events[-1].body, FinalResponse):
        return
    for closing in ("cancel", "fail"):
        check_run(events + close(folded(events, state.attempt), closing, ""))


@given(inputs)
def test_the_fold_of_the_log_is_the_state(steps: list[Body | None]) -> None:
    state, events = play(steps)
    assert vars(folded(events, state.attempt)) == vars(state)


@given(inputs, closings, texts)
def test_what_is_refused_changes_nothing(steps: list[Body | None], closing: str, content: str) -> None:
    state, _ = play(steps)
    before = {name: repr(value) for name, value in vars(state).items()}
    if not close(state, closing, content):
        assert {name: repr(value) for name, value in vars(state).items()} == before


@pytest.mark.parametrize("seq", [0, 1, 2, 4, 5])
def test_only_the_next_event_is_folded(seq: int) -> None:
    state, _ = play([AgentThinking("Hm.")])
    before = {name: repr(value) for name, value in vars(state).items()}
    event = Event(state.run_id, state.thread_id, seq, state.attempt, NOW, "data", AgentThinking("Hm again."))
    with pytest.raises(GrammarError, match=f"seq {seq} after 2"):
        state.apply(event)
    assert {name: repr(value) for name, value in vars(state).items()} == before


def test_the_terminal_event_repeats_the_agent_that_was_started() -> None:
    for end in ("complete", "cancel"):
        state = RunState("run-1", "thread-1")
        state.next(NOW, "supervisor", AgentStarted("data", "Message received.", "message-1"))
        if end == "complete":
            last = state.complete(NOW, FinalResponse("answer-1", "Yes."), 1, Usage())[-1]
        else:
            last = state.cancel(NOW, "Stopped.", 1, Usage())[-1]
        assert isinstance(last.body, AgentCompleted)
        assert last.body.agent_id == "data"
