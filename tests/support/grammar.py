"""The grammar of a run, as a check that every test can hold a run against: engine events and JSON frames alike.

`check_run` takes the engine's events, `check_frames` the frames of one run as a socket or the REST log gives them.
Both raise `GrammarViolationError`, whose text names the rule, the place and the run's events in short. A stream that
was cut before its end is checked with `finished=False`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Final

from agent_service.engine.events import Event

TERMINAL: Final = frozenset({"agent_completed", "agent_error"})
#: What a worker may write when it takes a run up only to end it.
CLOSING: Final = TERMINAL | {"tool_completed", "approval_resolved"}

EVENT_TYPES: Final = CLOSING | {
    "agent_started",
    "agent_progress",
    "agent_thinking",
    "agent_handoff",
    "tool_executing",
    "partial_result",
    "artifact_created",
    "approval_requested",
    "final_response",
}
ENVELOPE: Final = ("run_id", "thread_id", "seq", "attempt", "agent_name", "timestamp")
MAX_TEXT: Final = 60


class GrammarViolationError(AssertionError):
    """A run broke a rule of the contract."""


def check_run(events: Sequence[Event], *, finished: bool = True) -> None:
    """Check the events of one run, from seq 1 on."""
    _Checker([_from_event(event) for event in events], finished=finished).check()


def check_frames(frames: Sequence[Mapping[str, object]], *, finished: bool = True) -> None:
    """Check the event frames of one run, from seq 1 on, in the order of their arrival.

    Other frames (acks, pongs …) must have been left out; `event_frames` does that.
    """
    _Checker([_from_frame(frame) for frame in frames], finished=finished).check()


def event_frames(frames: Sequence[Mapping[str, object]], run_id: str) -> list[Mapping[str, object]]:
    """Return the event frames of this run, in the order of their arrival."""
    return [frame for frame in frames if frame.get("type") in EVENT_TYPES and frame.get("run_id") == run_id]


class _Entry:
    """One event, whichever form it came in."""

    def __init__(self, kind: str, envelope: Mapping[str, object], payload: Mapping[str, object]) -> None:
        self.kind = kind
        self.run_id = envelope["run_id"]
        self.thread_id = envelope["thread_id"]
        self.seq = envelope["seq"]
        self.attempt = envelope["attempt"]
        self.payload = payload

    def text(self, name: str) -> str:
        """Return a text field of the payload."""
        value = self.payload.get(name, "")
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> Sequence[str]:
        """Return a list of texts of the payload."""
        value = self.payload.get(name, ())
        return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else ()

    def short(self) -> str:
        """Return one line about the event."""
        shown = {name: value for name, value in self.payload.items() if value not in ("", 0, None, (), [], 0.0, False)}
        text = ", ".join(f"{name}={value!r:.{MAX_TEXT}}" for name, value in shown.items())
        return f"{self.seq} (attempt {self.attempt}) {self.kind}({text})"


def _from_event(event: Event) -> _Entry:
    body = event.body
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(body).__name__).lower()
    envelope = {name: getattr(event, name) for name in ("run_id", "thread_id", "seq", "attempt")}
    return _Entry(kind, envelope, {field.name: getattr(body, field.name) for field in fields(body)})


def _from_frame(frame: Mapping[str, object]) -> _Entry:
    kind, payload = frame.get("type"), frame.get("payload")
    missing = [name for name in ENVELOPE if name not in frame]
    if not isinstance(kind, str) or kind not in EVENT_TYPES or not isinstance(payload, Mapping) or missing:
        raise GrammarViolationError(f"this is no event frame (missing: {', '.join(missing) or 'nothing'}): {frame!r}")
    return _Entry(kind, frame, payload)


class _Checker:
    """Reads a run from its beginning and remembers what a rule needs later."""

    def __init__(self, entries: Sequence[_Entry], *, finished: bool) -> None:
        self._entries = entries
        self._finished = finished
        self._open_tools: dict[str, str] = {}
        self._tool_ids: set[str] = set()
        self._open_approvals: set[str] = set()
        self._approval_ids: set[str] = set()
        self._artifact_ids: set[str] = set()
        self._message_ids: set[str] = set()
        self._text: list[str] = []
        self._has_thought = False
        self._place = "the run as a whole"

    def check(self) -> None:
        self._require(bool(self._entries), "a run has at least its agent_started")
        for number, entry in enumerate(self._entries, 1):
            self._place = f"the event at place {number}, {entry.kind}"
            before = self._entries[number - 2] if number > 1 else None
            self._check_envelope(number, entry, before)
            self._check_body(entry, before)
        self._place = "the run as a whole"
        if self._finished:
            last = self._entries[-1].kind
            self._require(last in TERMINAL, f"every run ends with a terminal event, this one with {last}")

    def _require(self, holds: bool, rule: str) -> None:  # noqa: FBT001 - reads as a sentence
        if not holds:
            trace = "\n  ".join(entry.short() for entry in self._entries)
            raise GrammarViolationError(f"{self._place}: {rule}\n  {trace}")

    def _check_envelope(self, number: int, entry: _Entry, before: _Entry | None) -> None:
        self._require(entry.seq == number, f"seq is 1, 2, 3 … without gap or repeat: {number} belongs here")
        self._require((entry.kind == "agent_started") == (number == 1), "agent_started is event 1, and only event 1")
        if before is None:
            self._require(entry.attempt == 1, "the first attempt is 1")
            return
        same = (entry.run_id, entry.thread_id) == (before.run_id, before.thread_id)
        self._require(same, "all events are of one run and one thread")
        self._require(before.kind not in TERMINAL, "nothing follows the terminal event, for ever")
        assert isinstance(entry.attempt, int)
        assert isinstance(before.attempt, int)
        self._require(entry.attempt >= before.attempt, "attempts never go back")
        if entry.attempt > before.attempt:
            resumed = entry.kind == "agent_progress" and entry.text("stage") == "resumed"
            self._require(resumed or entry.kind in CLOSING, "a new attempt begins with agent_progress(RESUMED)")

    def _check_body(self, entry: _Entry, before: _Entry | None) -> None:
        after_answer = before is not None and before.kind == "final_response"
        is_success = entry.kind == "agent_completed" and entry.text("status") == "success"
        self._require(
            after_answer == is_success,
            "final_response stands directly before agent_completed(SUCCESS), and nowhere else",
        )
        match entry.kind:
            case "agent_thinking":
                self._has_thought = True
            case "agent_progress":
                if entry.payload.get("discard_partial"):
                    self._text.clear()
            case "tool_executing" | "tool_completed":
                self._check_tool(entry)
            case "approval_requested" | "approval_resolved":
                self._check_approval(entry)
            case "artifact_created":
                self._artifact_ids.add(entry.text("artifact_id"))
            case "partial_result":
                self._check_message_id(entry)
                self._text.append(entry.text("text"))
            case "final_response":
                self._check_answer(entry)
            case "agent_completed" | "agent_error":
                self._check_all_closed()
            case _:
                pass

    def _check_tool(self, entry: _Entry) -> None:
        call_id, name = entry.text("tool_call_id"), entry.text("tool_name")
        if entry.kind == "tool_executing":
            self._require(self._has_thought, "at least one agent_thinking comes before the first tool")
            self._require(bool(call_id), "a tool call has an id")
            self._require(call_id not in self._tool_ids, f"one tool_executing per tool call: {call_id} again")
            self._tool_ids.add(call_id)
            self._open_tools[call_id] = name
            return
        self._require(call_id in self._open_tools, f"tool_completed ends an open tool call: {call_id} is none")
        self._require(self._open_tools.pop(call_id) == name, f"{call_id} was a call of another tool")

    def _check_approval(self, entry: _Entry) -> None:
        approval_id = entry.text("approval_id")
        if entry.kind == "approval_requested":
            self._require(approval_id not in self._approval_ids, f"one request per approval: {approval_id} again")
            self._approval_ids.add(approval_id)
            self._open_approvals.add(approval_id)
            return
        self._require(approval_id in self._open_approvals, f"{approval_id} is no open approval")
        self._open_approvals.remove(approval_id)

    def _check_message_id(self, entry: _Entry) -> None:
        self._message_ids.add(entry.text("message_id"))
        self._require(len(self._message_ids) == 1, "one message_id in all partial_results and the final_response")

    def _check_answer(self, entry: _Entry) -> None:
        self._check_message_id(entry)
        self._check_all_closed()
        text, content = "".join(self._text), entry.text("content")
        self._require(
            text == content,
            f"the partial_result texts after the last discard_partial are the final content: "
            f"{len(text)} characters {text!r:.{MAX_TEXT}} against {len(content)} {content!r:.{MAX_TEXT}}",
        )
        unknown = set(entry.texts("artifact_ids")) - self._artifact_ids
        self._require(not unknown, f"artifact_ids name what artifact_created told: not {sorted(unknown)}")

    def _check_all_closed(self) -> None:
        self._require(
            not self._open_tools, f"each tool_executing has its tool_completed: not {sorted(self._open_tools)}"
        )
        self._require(not self._open_approvals, f"each approval is resolved: not {sorted(self._open_approvals)}")
