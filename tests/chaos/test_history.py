"""The history checker itself: a good history passes, and each planted fault alone is found and named."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent_service.api.wire import ProtoCodec
from agent_service.engine.events import (
    AgentCompleted,
    AgentProgress,
    AgentStarted,
    AgentThinking,
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
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.acceptance import new_run_record
from storage.records import MessageRecord, MessageRole, NewRun, RunStatus, ThreadConflict
from tests.support.history import (
    Ack,
    Form,
    History,
    HistoryFaultError,
    LoggedRun,
    Seen,
    Sent,
    ToolEffect,
    check_history,
)
from ws_bridge.wire.events import event_json

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
USER, THREAD = "ann", "thread"
DONE = AgentCompleted("supervisor", CompletionStatus.SUCCESS)
STOPPED = AgentCompleted("supervisor", CompletionStatus.CANCELLED)
QUEUED = AgentProgress(ProgressStage.QUEUED)
RESUMED = AgentProgress(ProgressStage.RESUMED)


def bodies(run_id: str) -> list[Body]:
    return [
        AgentStarted("supervisor", "Message received.", f"{run_id}-user"),
        QUEUED,
        AgentThinking("Hm."),
        ToolExecuting("pay", "pay", "Pay", {}, Effect.UNSAFE),
        ToolCompleted("pay", "pay", ToolStatus.SUCCESS),
        PartialResult(f"{run_id}-answer", "Paid."),
        FinalResponse(f"{run_id}-answer", "Paid."),
        DONE,
    ]


def logged(
    run_id: str, position: int, told: Sequence[Body], *, attempts: Sequence[int] = (), status: RunStatus
) -> LoggedRun:
    """Return a run whose events are a second apart, and whose work begins a minute after that of the run before it."""
    codec = ProtoCodec()
    begin = START + timedelta(minutes=position)
    attempts = attempts or [1] * len(told)
    events = [
        codec.encode(Event(run_id, THREAD, seq, attempt, begin + timedelta(seconds=seq), "data", body))
        for seq, (attempt, body) in enumerate(zip(attempts, told, strict=True), 1)
    ]
    new = NewRun(
        run_id=run_id,
        thread_id=THREAD,
        new_thread_title=None,
        user_id=USER,
        scopes=(),
        agent="",
        client_message_id=f"{run_id}-key",
        fingerprint="",
        request=b"",
        user_message_id=f"{run_id}-user",
        content=f"Question of {run_id}",
        create_time=START,
        started=b"",
        queued=b"",
        must_wait=False,
        conflict=ThreadConflict.ENQUEUE,
        max_open_runs=1,
    )
    record = replace(new_run_record(new, position=position, last_seq=len(events)), status=status)
    messages = [saved(run_id, MessageRole.USER, f"{run_id}-user", new.content)]
    if status is RunStatus.COMPLETED:
        messages.append(saved(run_id, MessageRole.ASSISTANT, f"{run_id}-answer", "Paid."))
    return LoggedRun(record, events, messages)


def saved(run_id: str, role: MessageRole, message_id: str, content: str) -> MessageRecord:
    return MessageRecord(message_id, THREAD, run_id, USER, role, content, START)


def texts(run: LoggedRun) -> list[bytes]:
    return [event_json(pb.AgentEvent.FromString(data)) for data in run.events]


FIRST = logged("one", 1, bodies("one"), status=RunStatus.COMPLETED)
SECOND = logged("two", 2, bodies("two"), status=RunStatus.COMPLETED)
UNKNOWN = ToolCompleted("pay", "pay", ToolStatus.OUTCOME_UNKNOWN)
CRASHED = logged(
    "three",
    3,
    [*bodies("three")[:4], RESUMED, UNKNOWN, STOPPED],
    attempts=[1, 1, 1, 1, 2, 2, 2],
    status=RunStatus.CANCELLED,
)
RUNS = (FIRST, SECOND, CRASHED)
GOOD = History(
    runs=RUNS,
    sent=[Sent(USER, f"{name}-key", f"Question of {name}") for name in ("one", "two", "three", "never saved")],
    acks=[Ack(USER, f"{name}-key", name, THREAD, f"{name}-user") for name in ("one", "two", "three")],
    seen=[
        Seen("socket", "one", 0, Form.JSON, texts(FIRST)),
        Seen("late socket", "two", 3, Form.JSON, texts(SECOND)[3:]),
        Seen("caller", "three", 0, Form.BYTES, CRASHED.events),
        Seen("gone", "two", 0, Form.BYTES, SECOND.events[:2], whole=False),
    ],
    effects=[ToolEffect("one", "pay"), ToolEffect("two", "pay"), ToolEffect("three", "pay")],
)


def test_a_good_history_passes() -> None:
    assert check_history(GOOD) == len(FIRST.events) + len(SECOND.events) - 3 + len(CRASHED.events) + 2


def test_an_unsafe_call_of_unknown_outcome_may_have_had_no_effect() -> None:
    check_history(replace(GOOD, effects=GOOD.effects[:2]))


def test_all_faults_are_told_together() -> None:
    with pytest.raises(HistoryFaultError, match=r"^2 faults:\n.*\n.*$"):
        check_history(replace(GOOD, acks=[replace(ack, run_id="lost") for ack in GOOD.acks[:2]]))


# ---- Planted faults ----


def seeing(seen: Seen) -> History:
    return replace(GOOD, seen=[*GOOD.seen[1:], seen])


def holding(run: LoggedRun, *, instead_of: LoggedRun = FIRST) -> History:
    """A history with another run in the log, of which nobody has seen anything."""
    runs = [run if known is instead_of else known for known in RUNS]
    return replace(GOOD, runs=runs, seen=[])


def lost_event() -> History:
    return seeing(Seen("socket", "one", 0, Form.JSON, [*texts(FIRST)[:3], *texts(FIRST)[4:]]))


def repeated_event() -> History:
    return seeing(Seen("socket", "one", 0, Form.JSON, [*texts(FIRST)[:3], *texts(FIRST)[2:]]))


def repeated_end() -> History:
    return seeing(Seen("socket", "one", 0, Form.JSON, [*texts(FIRST), texts(FIRST)[-1]]))


def changed_byte() -> History:
    return seeing(Seen("caller", "one", 0, Form.BYTES, [*FIRST.events[:-1], FIRST.events[-1][:-1] + b"\1"]))


def changed_text() -> History:
    return seeing(Seen("socket", "one", 0, Form.JSON, [text.replace(b"Hm.", b"Hm!") for text in texts(FIRST)]))


def missing_end() -> History:
    return seeing(Seen("socket", "one", 2, Form.JSON, texts(FIRST)[2:-1]))


def wrong_cursor() -> History:
    return seeing(Seen("socket", "one", 3, Form.JSON, texts(FIRST)[2:]))


def event_that_the_log_lost() -> History:
    return replace(GOOD, runs=RUNS[:2], acks=GOOD.acks[:2], effects=GOOD.effects[:2])


def run_without_an_end() -> History:
    return holding(replace(FIRST, events=FIRST.events[:-2]))


def two_ends() -> History:
    return holding(logged("one", 1, [*bodies("one"), STOPPED], status=RunStatus.COMPLETED))


def row_that_disagrees() -> History:
    return holding(replace(FIRST, record=replace(FIRST.record, last_seq=7)))


def row_of_another_end() -> History:
    return holding(replace(FIRST, record=replace(FIRST.record, status=RunStatus.FAILED)))


def event_of_another_run() -> History:
    stranger = logged("another", 1, bodies("one"), status=RunStatus.COMPLETED)
    return holding(replace(FIRST, events=stranger.events))


def acked_message_without_a_run() -> History:
    ack = Ack(USER, "never saved-key", "lost", THREAD, "lost-user")
    return replace(GOOD, acks=[*GOOD.acks, ack])


def ack_of_another_message() -> History:
    return replace(GOOD, acks=[replace(GOOD.acks[0], user_message_id="other"), *GOOD.acks[1:]])


def ack_of_another_thread() -> History:
    return replace(GOOD, acks=[replace(GOOD.acks[0], thread_id="other"), *GOOD.acks[1:]])


def two_runs_of_one_message() -> History:
    return holding(replace(SECOND, record=replace(SECOND.record, client_message_id="one-key")), instead_of=SECOND)


def run_that_nobody_asked_for() -> History:
    return replace(GOOD, sent=GOOD.sent[1:], acks=GOOD.acks[1:])


def lost_user_message() -> History:
    return holding(replace(FIRST, messages=FIRST.messages[1:]))


def changed_user_message() -> History:
    changed = replace(FIRST.messages[0], content="Question of")
    return holding(replace(FIRST, messages=[changed, *FIRST.messages[1:]]))


def lost_answer() -> History:
    return holding(replace(FIRST, messages=FIRST.messages[:1]))


def answer_saved_twice() -> History:
    return holding(replace(FIRST, messages=[*FIRST.messages, FIRST.messages[-1]]))


def doubled_effect() -> History:
    return replace(GOOD, effects=[*GOOD.effects, ToolEffect("one", "pay")])


def doubled_effect_of_unknown_outcome() -> History:
    return replace(GOOD, effects=[*GOOD.effects, ToolEffect("three", "pay")])


def effect_before_its_event() -> History:
    return replace(GOOD, effects=[*GOOD.effects, ToolEffect("one", "pay again")])


def success_without_an_effect() -> History:
    return replace(GOOD, effects=GOOD.effects[1:])


def certain_outcome_of_a_call_in_flight() -> History:
    told = [*bodies("three")[:4], RESUMED, ToolCompleted("pay", "pay", ToolStatus.CANCELLED), STOPPED]
    run = logged("three", 3, told, attempts=[1, 1, 1, 1, 2, 2, 2], status=RunStatus.CANCELLED)
    return holding(run, instead_of=CRASHED)


def run_before_its_turn() -> History:
    early = logged("two", 0, bodies("two"), status=RunStatus.COMPLETED)
    return holding(replace(early, record=replace(early.record, position=2)), instead_of=SECOND)


def two_runs_at_one_place() -> History:
    return holding(replace(SECOND, record=replace(SECOND.record, position=1)), instead_of=SECOND)


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (lost_event, "where the log has, at seq 4"),
        (repeated_event, "where the log has, at seq 4"),
        (repeated_end, "which the log does not have"),
        (changed_byte, "where the log has, at seq 8"),
        (changed_text, "where the log has, at seq 3"),
        (missing_end, "took that for all"),
        (wrong_cursor, "where the log has, at seq 4"),
        (event_that_the_log_lost, "of a run that the log does not have"),
        (run_without_an_end, "every run ends with a terminal event"),
        (two_ends, "nothing follows the terminal event"),
        (row_that_disagrees, "its row says 7 events"),
        (row_of_another_end, "its log ends with"),
        (event_of_another_run, "events of another run"),
        (acked_message_without_a_run, "acked as run lost"),
        (ack_of_another_message, "not the one that was acked"),
        (ack_of_another_thread, "names another message or thread"),
        (two_runs_of_one_message, "it has 2 runs"),
        (run_that_nobody_asked_for, "nobody sent"),
        (lost_user_message, "no saved user message"),
        (changed_user_message, "not the one that was acked"),
        (lost_answer, "0 saved answers"),
        (answer_saved_twice, "2 saved answers"),
        (doubled_effect, "took effect 2 times"),
        (doubled_effect_of_unknown_outcome, "took effect 2 times"),
        (effect_before_its_event, "no tool_executing for it"),
        (success_without_an_effect, "succeeded without an effect"),
        (certain_outcome_of_a_call_in_flight, "in flight when its worker was lost"),
        (run_before_its_turn, "at work before"),
        (two_runs_at_one_place, "have the positions"),
    ],
)
def test_a_fault_is_found(plant: Callable[[], History], words: str) -> None:
    with pytest.raises(HistoryFaultError, match=words):
        check_history(plant())
