"""A run's event → its frame. Written by hand, field by field: this is the hot path of the bridge.

The text depends on nothing but the event, so one text serves all its watchers. A type that is newer than this file is
mapped by its descriptor; one that is newer than the generated code becomes `unknown_event` without a payload.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from google.protobuf.message import Message

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge.wire.values import (
    JsonObject,
    enum_labels,
    label,
    message_object,
    reason_of,
    struct_object,
    time_text,
    to_json,
)

UNKNOWN_EVENT = "unknown_event"
TERMINAL_EVENTS = frozenset({"agent_completed", "agent_error"})
MAX_KEPT_TEXTS = 1024
"""Texts that are kept for further watchers of the same events, not counting those of the newest batch."""
MAX_KEPT_BYTES = 4 * 1024 * 1024
"""Bytes of all kept texts together, not counting those of the newest batch."""

_STAGES = enum_labels(pb.ProgressStage.DESCRIPTOR)
_EFFECTS = enum_labels(pb.ToolEffect.DESCRIPTOR)
_TOOL_STATUSES = enum_labels(pb.ToolStatus.DESCRIPTOR)
_DECISIONS = enum_labels(pb.ApprovalDecision.DESCRIPTOR)
_SOURCES = enum_labels(pb.AnswerSource.DESCRIPTOR)
_COMPLETIONS = enum_labels(pb.CompletionStatus.DESCRIPTOR)


class _PartialResult(msgspec.Struct, gc=False):
    """The payload of nearly every event: a struct is made and encoded faster than a dict."""

    message_id: str
    text: str


class _Frame(msgspec.Struct, gc=False):
    type: str
    run_id: str
    thread_id: str
    seq: int
    attempt: int
    agent_name: str
    timestamp: str | None
    payload: _PartialResult | JsonObject


def is_terminal(event: pb.AgentEvent) -> bool:
    """Tell whether the event is its run's last."""
    return event.WhichOneof("event") in TERMINAL_EVENTS


def event_json(event: pb.AgentEvent) -> bytes:
    """Return an event's frame as JSON text in UTF-8."""
    case = event.WhichOneof("event")
    frame = _Frame(
        case or UNKNOWN_EVENT,
        event.run_id,
        event.thread_id,
        event.seq,
        event.attempt,
        event.agent_name,
        time_text(event.emit_time) if event.HasField("emit_time") else None,
        _payload(event, case),
    )
    return to_json(frame)


class EventTexts:
    """Makes the texts of a batch of events once, however many sockets get the same batch at the time.

    Bounded: there are two halves, and when the newer one is full, it takes the place of the older one.
    """

    def __init__(self) -> None:
        self._newer: dict[tuple[str, int], list[bytes]] = {}
        self._older: dict[tuple[str, int], list[bytes]] = {}
        self._newer_texts = 0
        self._newer_bytes = 0

    def json(self, events: Sequence[pb.AgentEvent]) -> list[bytes]:
        """Return the frames of events of one run that follow each other, each as JSON text in UTF-8."""
        key = (events[0].run_id, events[0].seq)
        known = self._newer.get(key) or self._older.get(key) or []
        if len(known) >= len(events):
            return known[: len(events)]
        self._newer[key] = made = [*known, *map(event_json, events[len(known) :])]
        self._newer_texts += len(made)
        self._newer_bytes += sum(map(len, made))
        if self._newer_texts >= MAX_KEPT_TEXTS // 2 or self._newer_bytes >= MAX_KEPT_BYTES // 2:
            self._older, self._newer = self._newer, {}
            self._newer_texts = self._newer_bytes = 0
        return made


def _payload(event: pb.AgentEvent, case: str | None) -> _PartialResult | JsonObject:
    if case is None:
        return {}
    mapping = PAYLOADS.get(case)
    if mapping is not None:
        return mapping(event)
    newer = getattr(event, case)
    return message_object(newer) if isinstance(newer, Message) else {}


def _agent_started(event: pb.AgentEvent) -> JsonObject:
    body = event.agent_started
    return {"agent_id": body.agent_id, "message": body.message, "user_message_id": body.user_message_id}


def _agent_progress(event: pb.AgentEvent) -> JsonObject:
    body = event.agent_progress
    return {
        "stage": label(_STAGES, body.stage),
        "message": body.message,
        "step": body.step,
        "total_steps": body.total_steps,
        "fraction": body.fraction,
        "queue_position": body.queue_position,
        "tool_call_id": body.tool_call_id,
        "intent": body.intent,
        "confidence": body.confidence,
        "planned_steps": [
            {"agent_name": step.agent_name, "description": step.description} for step in body.planned_steps
        ],
        "discard_partial": body.discard_partial,
    }


def _agent_thinking(event: pb.AgentEvent) -> JsonObject:
    body = event.agent_thinking
    return {"thought": body.thought, "step": body.step, "total_steps": body.total_steps}


def _agent_handoff(event: pb.AgentEvent) -> JsonObject:
    body = event.agent_handoff
    return {"from_agent": body.from_agent, "to_agent": body.to_agent, "reason": body.reason}


def _tool_executing(event: pb.AgentEvent) -> JsonObject:
    body = event.tool_executing
    return {
        "tool_call_id": body.tool_call_id,
        "tool_name": body.tool_name,
        "description": body.description,
        "tool_args": struct_object(body.tool_args) if body.HasField("tool_args") else None,
        "effect": label(_EFFECTS, body.effect),
    }


def _tool_completed(event: pb.AgentEvent) -> JsonObject:
    body = event.tool_completed
    return {
        "tool_call_id": body.tool_call_id,
        "tool_name": body.tool_name,
        "status": label(_TOOL_STATUSES, body.status),
        "result_summary": body.result_summary,
        "result": struct_object(body.result) if body.HasField("result") else None,
        "artifact_id": body.artifact_id,
        "error": body.error,
        "execution_time_ms": body.execution_time_ms,
    }


def _partial_result(event: pb.AgentEvent) -> _PartialResult:
    body = event.partial_result
    return _PartialResult(body.message_id, body.text)


def _artifact_created(event: pb.AgentEvent) -> JsonObject:
    body = event.artifact_created
    return {
        "artifact_id": body.artifact_id,
        "name": body.name,
        "media_type": body.media_type,
        "size_bytes": body.size_bytes,
        "description": body.description,
    }


def _approval_requested(event: pb.AgentEvent) -> JsonObject:
    body = event.approval_requested
    return {
        "approval_id": body.approval_id,
        "tool_name": body.tool_name,
        "tool_args": struct_object(body.tool_args) if body.HasField("tool_args") else None,
        "reason": body.reason,
        "expire_time": time_text(body.expire_time) if body.HasField("expire_time") else None,
    }


def _approval_resolved(event: pb.AgentEvent) -> JsonObject:
    body = event.approval_resolved
    return {
        "approval_id": body.approval_id,
        "decision": label(_DECISIONS, body.decision),
        "decided_by": body.decided_by,
        "comment": body.comment,
    }


def _final_response(event: pb.AgentEvent) -> JsonObject:
    body = event.final_response
    return {
        "message_id": body.message_id,
        "content": body.content,
        "source": label(_SOURCES, body.source),
        "degraded": body.degraded,
        "missing_data": list(body.missing_data),
        "suggestions": list(body.suggestions),
        "artifact_ids": list(body.artifact_ids),
    }


def _agent_completed(event: pb.AgentEvent) -> JsonObject:
    body = event.agent_completed
    return {
        "agent_id": body.agent_id,
        "status": label(_COMPLETIONS, body.status),
        "message": body.message,
        "execution_time_ms": body.execution_time_ms,
        "usage": _usage(body.usage) if body.HasField("usage") else None,
    }


def _agent_error(event: pb.AgentEvent) -> JsonObject:
    body = event.agent_error
    return {
        "reason": reason_of(body.reason),
        "error_id": body.error_id,
        "message": body.message,
        "retryable": body.retryable,
        "recovery_suggestions": list(body.recovery_suggestions),
        "execution_time_ms": body.execution_time_ms,
        "usage": _usage(body.usage) if body.HasField("usage") else None,
    }


def _usage(usage: pb.Usage) -> JsonObject:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "model_requests": usage.model_requests,
        "tool_calls": usage.tool_calls,
        "cost_usd": usage.cost_usd,
    }


PAYLOADS: Mapping[str, Callable[[pb.AgentEvent], _PartialResult | JsonObject]] = {
    "agent_started": _agent_started,
    "agent_progress": _agent_progress,
    "agent_thinking": _agent_thinking,
    "agent_handoff": _agent_handoff,
    "tool_executing": _tool_executing,
    "tool_completed": _tool_completed,
    "partial_result": _partial_result,
    "artifact_created": _artifact_created,
    "approval_requested": _approval_requested,
    "approval_resolved": _approval_resolved,
    "final_response": _final_response,
    "agent_completed": _agent_completed,
    "agent_error": _agent_error,
}
"""The hand-written mapping of each case of the contract."""
