"""One run as a state machine: the fold of its events, and what must be emitted to resume or end it.

Pure: the same state and the same input give the same events. Time is an argument; nothing here waits.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from agent_service.engine.errors import ApexError, ErrorReason, GrammarError
from agent_service.engine.events import (
    AgentCompleted,
    AgentError,
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

SUPERVISOR = "supervisor"
"""The agent name of the run's own events: acceptance, resumption, the end."""

MAX_PIECE_CHARACTERS = 16_000
"""Of one `partial_result`: at four bytes a character it stays within the contract's 64 KiB."""

RETRYABLE_REASONS = frozenset(
    {
        ErrorReason.DEADLINE_EXCEEDED,
        ErrorReason.MODEL_UNAVAILABLE,
        ErrorReason.TOOL_FAILED,
        ErrorReason.WORKER_LOST,
        ErrorReason.STORAGE_UNAVAILABLE,
        ErrorReason.SERVICE_UNAVAILABLE,
        ErrorReason.DRAINING,
        ErrorReason.INTERNAL,
        ErrorReason.RATE_LIMITED,
        ErrorReason.TOO_MANY_CONNECTIONS,
        ErrorReason.TOO_MANY_RUNS,
        ErrorReason.RUN_CONFLICT,
        ErrorReason.SLOW_CONSUMER,
    }
)
"""The reasons after which the same request may succeed later."""

OUTCOME_UNKNOWN = "This was cut off while it ran: it is not known whether it took effect. It was not repeated."
"""How an unsafe call ends whose worker is gone, or whose run ends first."""


@dataclass(frozen=True, slots=True)
class ToolCallState:
    """A tool call of this run: open until `completed` is set."""

    agent_name: str
    executing: ToolExecuting
    emit_time: datetime
    completed: ToolCompleted | None = None


@dataclass(frozen=True, slots=True)
class ApprovalState:
    """A question of this run to a person: open until `resolved` is set."""

    agent_name: str
    requested: ApprovalRequested
    resolved: ApprovalResolved | None = None


class RunState:
    """What the events so far say. `next` makes the next event; `apply` folds one that was read from the log."""

    def __init__(self, run_id: str, thread_id: str, attempt: int = 1) -> None:
        self.run_id = run_id
        self.thread_id = thread_id
        self.attempt = attempt
        self.last_seq = 0
        self.ended = False
        self.has_thought = False
        #: When the first worker began: the time of the first event after acceptance.
        self.begin_time: datetime | None = None
        self.agent_id = SUPERVISOR
        self.message_id = ""
        self.tools: dict[str, ToolCallState] = {}
        self.approvals: dict[str, ApprovalState] = {}
        self.artifact_ids: list[str] = []
        self._answered = False
        self._text: list[str] = []
        #: The attempt of the last event.
        self._told_attempt = 1
        self._waited = timedelta()
        self._waiting_since: datetime | None = None

    @classmethod
    def unread(cls, run_id: str, thread_id: str, last_seq: int) -> Self:
        """Return the state of a run whose log cannot be read: all that is left is to end it."""
        state = cls(run_id, thread_id)
        state.last_seq = last_seq
        return state

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Let the events of the body count only if it ends well; else the state is what it was before."""
        before = {name: copy.copy(value) for name, value in vars(self).items()}
        try:
            yield
        except BaseException:
            vars(self).update(before)
            raise

    @property
    def text(self) -> str:
        """The streamed answer since the last `discard_partial`."""
        return "".join(self._text)

    @property
    def open_tools(self) -> list[ToolCallState]:
        """The tool calls without an end, in the order in which they began."""
        return [call for call in self.tools.values() if call.completed is None]

    @property
    def open_approvals(self) -> list[ApprovalState]:
        """The questions without an answer, in the order in which they were asked."""
        return [approval for approval in self.approvals.values() if approval.resolved is None]

    def waited(self, now: datetime) -> timedelta:
        """Return for how long the run has waited for people: from a question until work goes on."""
        since = self._waiting_since
        return self._waited if since is None else self._waited + max(now - since, timedelta())

    def next(self, now: datetime, agent_name: str, body: Body) -> Event:
        """Return the event that `body` becomes, and fold it. Raises `GrammarError` where it does not fit."""
        event = self.draft(now, agent_name, body)
        self.apply(event)
        return event

    def draft(self, now: datetime, agent_name: str, body: Body) -> Event:
        """Return the event that `body` would become, without folding it."""
        return Event(self.run_id, self.thread_id, self.last_seq + 1, self.attempt, now, agent_name, body)

    def apply(self, event: Event) -> None:
        """Fold one event. Raises `GrammarError` where it does not fit."""
        if event.seq != self.last_seq + 1:
            raise GrammarError(f"run {self.run_id}: seq {event.seq} after {self.last_seq}")
        if problem := self._problem(event):
            raise GrammarError(f"run {self.run_id}, seq {event.seq}, {type(event.body).__name__}: {problem}")
        self._fold(event)
        if self.begin_time is None and not _is_acceptance(event.body):
            self.begin_time = event.emit_time
        self._count_waiting(event)
        self._told_attempt = event.attempt
        self.last_seq = event.seq

    def _problem(self, event: Event) -> str:  # noqa: C901, PLR0911, PLR0912 - one case per kind of event
        body = event.body
        if self.ended:
            return "the run has ended"
        if isinstance(body, AgentStarted) is not (event.seq == 1):
            return "agent_started is event 1 and only event 1"
        if self._answered and not isinstance(body, AgentCompleted):
            return "only agent_completed follows final_response"
        match body:
            case PartialResult():  # first: there are most of them
                return self._other_message(body)
            case ToolExecuting():
                if not self.has_thought:
                    return "no agent_thinking came before the first tool"
                return "the tool call id is taken" if body.tool_call_id in self.tools else ""
            case ToolCompleted():
                call = self.tools.get(body.tool_call_id)
                return "" if call is not None and call.completed is None else "no such open tool call"
            case ApprovalRequested():
                return "the approval id is taken" if body.approval_id in self.approvals else ""
            case ApprovalResolved():
                asked = self.approvals.get(body.approval_id)
                return "" if asked is not None and asked.resolved is None else "no such open approval"
            case FinalResponse():
                differs = "" if body.content == self.text else "it differs from the streamed text"
                return self._unfinished() or self._other_message(body) or differs
            case AgentCompleted(status=CompletionStatus.SUCCESS):
                return "" if self._answered else "success needs a final_response"
            case AgentCompleted():
                return "a final_response was given" if self._answered else self._unfinished()
            case AgentError():
                return self._unfinished()
            case _:
                return ""

    def _unfinished(self) -> str:
        return "a tool call or an approval is open" if self.open_tools or self.open_approvals else ""

    def _other_message(self, body: PartialResult | FinalResponse) -> str:
        return "" if not self.message_id or self.message_id == body.message_id else "another message is being written"

    def _fold(self, event: Event) -> None:  # noqa: C901 - one case per kind of event
        body = event.body
        match body:
            case PartialResult():  # first: there are most of them
                self.message_id = body.message_id
                self._text.append(body.text)
            case AgentStarted():
                self.agent_id = body.agent_id
            case AgentThinking():
                self.has_thought = True
            case AgentProgress(discard_partial=True):
                self._text.clear()
            case ToolExecuting():
                self.tools[body.tool_call_id] = ToolCallState(event.agent_name, body, event.emit_time)
            case ToolCompleted():
                self.tools[body.tool_call_id] = replace(self.tools[body.tool_call_id], completed=body)
            case ArtifactCreated():
                self.artifact_ids.append(body.artifact_id)
            case ApprovalRequested():
                self.approvals[body.approval_id] = ApprovalState(event.agent_name, body)
            case ApprovalResolved():
                self.approvals[body.approval_id] = replace(self.approvals[body.approval_id], resolved=body)
            case FinalResponse():
                self._answered = True
                self.message_id = body.message_id
            case AgentCompleted() | AgentError():
                self.ended = True
            case _:
                pass

    def _count_waiting(self, event: Event) -> None:
        if isinstance(event.body, ApprovalRequested):
            self._waiting_since = self._waiting_since or event.emit_time
        elif not isinstance(event.body, ApprovalResolved) and not self.open_approvals:
            self._waited = self.waited(event.emit_time)
            self._waiting_since = None

    def resume(self, now: datetime) -> list[Event]:
        """Return the events of a worker that takes the run up again: the notice, and unsafe calls closed.

        Safe calls stay open: they run again under their id. A worker that goes on after a person's decision takes
        nothing over, and gives no notice.
        """
        events: list[Event] = []
        if self.attempt > self._told_attempt:
            discards = bool(self._text)
            text = "Another worker goes on with this run."
            events.append(
                self.next(now, SUPERVISOR, AgentProgress(ProgressStage.RESUMED, text, discard_partial=discards))
            )
        return events + self._close_unsafe(now)

    def complete(self, now: datetime, final: FinalResponse, execution_time_ms: int, usage: Usage) -> list[Event]:
        """Return the events of success: what of the text was not streamed yet, the answer, the end."""
        events = self._close_all(now, ToolStatus.CANCELLED, "The run ended first.")
        text = self.text
        if not final.content.startswith(text):
            restart = AgentProgress(ProgressStage.STEP, "The answer is written anew.", discard_partial=True)
            events.append(self.next(now, SUPERVISOR, restart))
            text = ""
        for start in range(len(text), len(final.content), MAX_PIECE_CHARACTERS):
            piece = PartialResult(final.message_id, final.content[start : start + MAX_PIECE_CHARACTERS])
            events.append(self.next(now, SUPERVISOR, piece))
        events.append(self.next(now, SUPERVISOR, final))
        completed = AgentCompleted(self.agent_id, CompletionStatus.SUCCESS, "Done.", execution_time_ms, usage)
        events.append(self.next(now, SUPERVISOR, completed))
        return events

    def cancel(self, now: datetime, reason: str, execution_time_ms: int, usage: Usage) -> list[Event]:
        """Return the events of a cancelled run: open calls and approvals closed, the end."""
        events = self._close_all(now, ToolStatus.CANCELLED, "The run was cancelled.")
        completed = AgentCompleted(self.agent_id, CompletionStatus.CANCELLED, reason, execution_time_ms, usage)
        return [*events, self.next(now, SUPERVISOR, completed)]

    def fail(self, now: datetime, error: ApexError, error_id: str, execution_time_ms: int, usage: Usage) -> list[Event]:
        """Return the events of a failed run: open calls and approvals closed, the error."""
        lost = error.reason is ErrorReason.WORKER_LOST
        status = ToolStatus.OUTCOME_UNKNOWN if lost else ToolStatus.CANCELLED
        events = self._close_all(now, status, "The run failed before this ended.")
        body = AgentError(
            reason=error.reason,
            error_id=error_id,
            message=error.message,
            retryable=error.reason in RETRYABLE_REASONS,
            recovery_suggestions=error.recovery_suggestions,
            execution_time_ms=execution_time_ms,
            usage=usage,
        )
        return [*events, self.next(now, SUPERVISOR, body)]

    def _close_all(self, now: datetime, status: ToolStatus, error: str) -> list[Event]:
        events = self._close_unsafe(now)
        events += self._close_tools(now, self.open_tools, status, error)
        return events + self._close_approvals(now)

    def _close_unsafe(self, now: datetime) -> list[Event]:
        """Close the calls that may have taken effect, whoever cut them off: nobody can tell."""
        unsafe = [call for call in self.open_tools if call.executing.effect is Effect.UNSAFE]
        return self._close_tools(now, unsafe, ToolStatus.OUTCOME_UNKNOWN, OUTCOME_UNKNOWN)

    def _close_approvals(self, now: datetime) -> list[Event]:
        events: list[Event] = []
        for approval in self.open_approvals:
            resolved = ApprovalResolved(approval.requested.approval_id, ApprovalDecision.CANCELLED)
            events.append(self.next(now, approval.agent_name, resolved))
        return events

    def _close_tools(
        self, now: datetime, calls: Iterable[ToolCallState], status: ToolStatus, error: str
    ) -> list[Event]:
        return [
            self.next(
                now,
                call.agent_name,
                ToolCompleted(
                    tool_call_id=call.executing.tool_call_id,
                    tool_name=call.executing.tool_name,
                    status=status,
                    error=error,
                    execution_time_ms=max(0, round((now - call.emit_time).total_seconds() * 1000)),
                ),
            )
            for call in calls
        ]


def _is_acceptance(body: Body) -> bool:
    """Return whether an event of this kind is saved with the run, before anybody works on it."""
    return isinstance(body, AgentStarted) or (isinstance(body, AgentProgress) and body.stage is ProgressStage.QUEUED)
