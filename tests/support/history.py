"""The history checker: what clients saw, were promised and caused, held against the log that the database keeps.

`check_history` raises `HistoryFaultError`, whose text lists every fault. It knows nothing of how the history came
about: any test that gathers one may use it, once every run has ended.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise
from typing import Final

from agent_service.api.wire import ProtoCodec
from agent_service.engine.events import (
    AgentCompleted,
    AgentError,
    AgentProgress,
    AgentStarted,
    CompletionStatus,
    Effect,
    Event,
    FinalResponse,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
)
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.records import MessageRecord, MessageRole, RunRecord, RunStatus
from tests.support.grammar import GrammarViolationError, check_run
from ws_bridge.wire.events import event_json

MAX_TOLD: Final = 30
"""Faults that an error names one by one."""


class Form(Enum):
    """What a client receives for an event."""

    #: The encoded contract event.
    BYTES = auto()
    #: The frame's JSON text.
    JSON = auto()


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """A run as the database holds it: its row, its events and its messages, each in order."""

    record: RunRecord
    events: Sequence[bytes]
    messages: Sequence[MessageRecord]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that a client sent, once or more often, under one key."""

    user_id: str
    message_id: str
    content: str


@dataclass(frozen=True, slots=True)
class Ack:
    """The promise that a client got for its message: durable."""

    user_id: str
    message_id: str
    run_id: str
    thread_id: str
    user_message_id: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What one client saw of one run after its cursor, over all its connections. `whole`: it saw the end."""

    client: str
    run_id: str
    after_seq: int
    form: Form
    items: Sequence[bytes]
    whole: bool = True


@dataclass(frozen=True, slots=True)
class ToolEffect:
    """An effect that a tool call left outside the service."""

    run_id: str
    tool_call_id: str


@dataclass(frozen=True, slots=True)
class History:
    """Everything about the runs of some users, when all of them have ended."""

    runs: Sequence[LoggedRun]
    sent: Sequence[Sent]
    acks: Sequence[Ack]
    seen: Sequence[Seen]
    effects: Sequence[ToolEffect]


class HistoryFaultError(AssertionError):
    """Somebody saw, was promised or caused what the log does not say."""


def check_history(history: History) -> int:
    """Raise `HistoryFaultError` unless everything agrees; return how many seen events were compared."""
    faults = list(_Checker(history).faults())
    if faults:
        more = f"\n… and {len(faults) - MAX_TOLD} more" if len(faults) > MAX_TOLD else ""
        raise HistoryFaultError(f"{len(faults)} faults:\n" + "\n".join(faults[:MAX_TOLD]) + more)
    return sum(len(seen.items) for seen in history.seen)


def events_of(run: LoggedRun) -> Sequence[Event]:
    """Return a run's events as the engine sees them."""
    codec = ProtoCodec()
    return [codec.decode(data) for data in run.events]


class _Checker:
    def __init__(self, history: History) -> None:
        self._history = history
        self._runs = {run.record.run_id: run for run in history.runs}
        self._events = {run_id: events_of(run) for run_id, run in self._runs.items()}

    def faults(self) -> Iterator[str]:
        """Yield every fault in words."""
        for run in self._history.runs:
            yield from self._run_faults(run)
        for seen in self._history.seen:
            yield from self._seen_faults(seen)
        yield from self._message_faults()
        yield from self._effect_faults()
        yield from self._thread_faults()

    # ---- The log itself ----

    def _run_faults(self, run: LoggedRun) -> Iterator[str]:
        record, events = run.record, self._events[run.record.run_id]
        name = f"run {record.run_id} ({record.status})"
        try:
            check_run(events)
        except GrammarViolationError as error:
            yield f"{name}: {error}"
            return
        if {event.run_id for event in events} != {record.run_id}:
            yield f"{name}: it holds events of another run"
        if record.last_seq != len(events):
            yield f"{name}: its row says {record.last_seq} events, its log has {len(events)}"
        if record.status is not _status(events[-1]):
            yield f"{name}: its log ends with {events[-1].body}"
        yield from _saved_message_faults(name, run, events)
        yield from _tool_faults(name, events)

    # ---- What clients saw ----

    def _seen_faults(self, seen: Seen) -> Iterator[str]:
        name = f"{seen.client}, run {seen.run_id} after {seen.after_seq}"
        run = self._runs.get(seen.run_id)
        if run is None:
            yield f"{name}: it saw {len(seen.items)} events of a run that the log does not have"
            return
        logged = [data if seen.form is Form.BYTES else _json(data) for data in run.events[seen.after_seq :]]
        for place, (item, expected) in enumerate(zip(seen.items, logged, strict=False)):
            if item != expected:
                seq = seen.after_seq + place + 1
                yield f"{name}: it saw {_short(item)} where the log has, at seq {seq}, {_short(expected)}"
                return
        if len(seen.items) > len(logged):
            yield f"{name}: it saw {_short(seen.items[len(logged)])}, which the log does not have"
        if seen.whole and len(seen.items) < len(logged):
            yield f"{name}: it saw {len(seen.items)} of {len(logged)} events, and took that for all"

    # ---- What was promised ----

    def _message_faults(self) -> Iterator[str]:
        sent = {(message.user_id, message.message_id): message for message in self._history.sent}
        runs: defaultdict[tuple[str, str], list[LoggedRun]] = defaultdict(list)
        for run in self._history.runs:
            key = run.record.user_id, run.record.client_message_id
            runs[key].append(run)
            if key not in sent:
                yield f"run {run.record.run_id}: nobody sent {key}"
        for key, found in runs.items():
            if len(found) > 1:
                yield f"message {key}: it has {len(found)} runs"
        for ack in self._history.acks:
            key = ack.user_id, ack.message_id
            promised = [run for run in runs[key] if run.record.run_id == ack.run_id]
            if not promised or key not in sent:
                yield f"message {key}: it was acked as run {ack.run_id}, which the log does not have"
                continue
            yield from self._promise_faults(ack, sent[key], promised[0])

    def _promise_faults(self, ack: Ack, sent: Sent, run: LoggedRun) -> Iterator[str]:
        started = self._events[ack.run_id][:1]
        told = [event.body.user_message_id for event in started if isinstance(event.body, AgentStarted)]
        users = [message for message in run.messages if message.role is MessageRole.USER]
        if [(message.message_id, message.content) for message in users] != [(ack.user_message_id, sent.content)]:
            yield f"run {ack.run_id}: its saved user message is not the one that was acked"
        if told != [ack.user_message_id] or run.record.thread_id != ack.thread_id:
            yield f"run {ack.run_id}: its ack names another message or thread than its log"

    # ---- What tools did ----

    def _effect_faults(self) -> Iterator[str]:
        left = Counter((effect.run_id, effect.tool_call_id) for effect in self._history.effects)
        known: set[tuple[str, str]] = set()
        for run_id, events in self._events.items():
            calls = {body.tool_call_id: body for event in events if isinstance(body := event.body, ToolExecuting)}
            ends = {body.tool_call_id: body for event in events if isinstance(body := event.body, ToolCompleted)}
            for call_id, call in calls.items():
                key, times = (run_id, call_id), left[run_id, call_id]
                known.add(key)
                if call.effect is Effect.UNSAFE and times > 1:
                    yield f"call {key}: {call.tool_name} is unsafe and took effect {times} times"
                if call_id in ends and ends[call_id].status is ToolStatus.SUCCESS and not times:
                    yield f"call {key}: {call.tool_name} succeeded without an effect"
        for key in left.keys() - known:
            yield f"call {key}: it took effect, and the log has no tool_executing for it"

    # ---- Runs of a thread ----

    def _thread_faults(self) -> Iterator[str]:
        threads: defaultdict[str, list[LoggedRun]] = defaultdict(list)
        for run in self._history.runs:
            threads[run.record.thread_id].append(run)
        for thread_id, runs in threads.items():
            runs.sort(key=lambda run: run.record.position)
            positions = [run.record.position for run in runs]
            if positions != list(range(1, len(runs) + 1)):
                yield f"thread {thread_id}: its runs have the positions {positions}"
            for earlier, later in pairwise(runs):
                work = [event for event in self._events[later.record.run_id] if _is_work(event)]
                end = self._events[earlier.record.run_id][-1:]
                if work and end and work[0].emit_time < end[0].emit_time:
                    ids = earlier.record.run_id, later.record.run_id
                    yield f"thread {thread_id}: run {ids[1]} was at work before run {ids[0]} had ended"


def _status(last: Event) -> RunStatus:
    """Return the status that a terminal event stands for."""
    if isinstance(last.body, AgentError):
        return RunStatus.FAILED
    completed = isinstance(last.body, AgentCompleted) and last.body.status is CompletionStatus.SUCCESS
    return RunStatus.COMPLETED if completed else RunStatus.CANCELLED


def _saved_message_faults(name: str, run: LoggedRun, events: Sequence[Event]) -> Iterator[str]:
    answers = [(body.message_id, body.content) for event in events if isinstance(body := event.body, FinalResponse)]
    saved = [(message.message_id, message.content) for message in run.messages if message.role is MessageRole.ASSISTANT]
    if answers != saved:
        yield f"{name}: it has {len(saved)} saved answers, which are not the {len(answers)} of its log"
    if [message.role for message in run.messages][:1] != [MessageRole.USER]:
        yield f"{name}: it has no saved user message before its answer"


def _tool_faults(name: str, events: Sequence[Event]) -> Iterator[str]:
    """Yield the unsafe calls that were in flight when a worker was lost, and are said to have ended."""
    begun = {body.tool_call_id: event for event in events if isinstance(body := event.body, ToolExecuting)}
    for event in events:
        body = event.body
        if not isinstance(body, ToolCompleted):
            continue
        executing = begun[body.tool_call_id].body
        lost = event.attempt > begun[body.tool_call_id].attempt
        unsafe = isinstance(executing, ToolExecuting) and executing.effect is Effect.UNSAFE
        if lost and unsafe and body.status is not ToolStatus.OUTCOME_UNKNOWN:
            yield f"{name}: {body.tool_call_id} was in flight when its worker was lost, and ended as {body.status}"


def _is_work(event: Event) -> bool:
    """Tell whether a worker wrote the event to go on with the run, rather than acceptance or a cancellation."""
    match event.body:
        case AgentStarted() | AgentCompleted() | AgentError():
            return False
        case AgentProgress(stage=ProgressStage.QUEUED):
            return False
        case _:
            return True


def _json(data: bytes) -> bytes:
    return event_json(pb.AgentEvent.FromString(data))


def _short(item: bytes) -> str:
    return f"{item!r:.160}"
