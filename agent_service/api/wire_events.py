"""Events: domain ↔ contract. One function per direction and case; the tables at the end name every case once."""

from collections.abc import Callable, Mapping
from typing import Final

from agent_service.api.wire_values import EnumMap, from_struct, to_datetime, to_struct, to_timestamp
from agent_service.engine.errors import ErrorReason
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
    PartialResult,
    PlannedStep,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
    Usage,
)
from generated.apex.agent.v1 import agent_pb2 as pb

REASONS: Final = EnumMap(ErrorReason, pb.ErrorReason, "ERROR_REASON")
STAGES: Final = EnumMap(ProgressStage, pb.ProgressStage, "PROGRESS_STAGE")
EFFECTS: Final = EnumMap(Effect, pb.ToolEffect, "TOOL_EFFECT")
TOOL_STATUSES: Final = EnumMap(ToolStatus, pb.ToolStatus, "TOOL_STATUS")
DECISIONS: Final = EnumMap(ApprovalDecision, pb.ApprovalDecision, "APPROVAL_DECISION")
SOURCES: Final = EnumMap(AnswerSource, pb.AnswerSource, "ANSWER_SOURCE")
COMPLETIONS: Final = EnumMap(CompletionStatus, pb.CompletionStatus, "COMPLETION_STATUS")

MONEY_DECIMALS: Final = 6
"""Decimals of money on the wire."""


def fill_body(wire: pb.AgentEvent, body: Body) -> None:  # noqa: C901, PLR0912 - a table would lose mypy's exhaustiveness check
    """Set the event's oneof case. mypy finds the case that is missing here."""
    match body:
        case AgentStarted():
            wire.agent_started.CopyFrom(_started_to_wire(body))
        case AgentProgress():
            wire.agent_progress.CopyFrom(_progress_to_wire(body))
        case AgentThinking():
            wire.agent_thinking.CopyFrom(
                pb.AgentThinking(thought=body.thought, step=body.step, total_steps=body.total_steps)
            )
        case AgentHandoff():
            wire.agent_handoff.CopyFrom(
                pb.AgentHandoff(from_agent=body.from_agent, to_agent=body.to_agent, reason=body.reason)
            )
        case ToolExecuting():
            wire.tool_executing.CopyFrom(_executing_to_wire(body))
        case ToolCompleted():
            wire.tool_completed.CopyFrom(_completed_tool_to_wire(body))
        case PartialResult():
            wire.partial_result.CopyFrom(pb.PartialResult(message_id=body.message_id, text=body.text))
        case ArtifactCreated():
            wire.artifact_created.CopyFrom(_artifact_to_wire(body))
        case ApprovalRequested():
            wire.approval_requested.CopyFrom(_requested_to_wire(body))
        case ApprovalResolved():
            wire.approval_resolved.CopyFrom(_resolved_to_wire(body))
        case FinalResponse():
            wire.final_response.CopyFrom(_response_to_wire(body))
        case AgentCompleted():
            wire.agent_completed.CopyFrom(_completed_to_wire(body))
        case AgentError():
            wire.agent_error.CopyFrom(_error_to_wire(body))


def event_to_domain(wire: pb.AgentEvent) -> Event:
    """Return the domain's event. Raises `KeyError` for a case or value that this version does not know."""
    return Event(
        run_id=wire.run_id,
        thread_id=wire.thread_id,
        seq=wire.seq,
        attempt=wire.attempt,
        emit_time=to_datetime(wire.emit_time),
        agent_name=wire.agent_name,
        body=BODY_READERS[wire.WhichOneof("event") or ""](wire),
    )


def _started_to_wire(body: AgentStarted) -> pb.AgentStarted:
    return pb.AgentStarted(agent_id=body.agent_id, message=body.message, user_message_id=body.user_message_id)


def _progress_to_wire(body: AgentProgress) -> pb.AgentProgress:
    return pb.AgentProgress(
        stage=STAGES.to_wire(body.stage),
        message=body.message,
        step=body.step,
        total_steps=body.total_steps,
        fraction=body.fraction,
        queue_position=body.queue_position,
        tool_call_id=body.tool_call_id,
        intent=body.intent,
        confidence=body.confidence,
        planned_steps=[
            pb.PlannedStep(agent_name=step.agent_name, description=step.description) for step in body.planned_steps
        ],
        discard_partial=body.discard_partial,
    )


def _executing_to_wire(body: ToolExecuting) -> pb.ToolExecuting:
    return pb.ToolExecuting(
        tool_call_id=body.tool_call_id,
        tool_name=body.tool_name,
        description=body.description,
        tool_args=to_struct(body.tool_args),
        effect=EFFECTS.to_wire(body.effect),
    )


def _completed_tool_to_wire(body: ToolCompleted) -> pb.ToolCompleted:
    return pb.ToolCompleted(
        tool_call_id=body.tool_call_id,
        tool_name=body.tool_name,
        status=TOOL_STATUSES.to_wire(body.status),
        result_summary=body.result_summary,
        result=None if body.result is None else to_struct(body.result),
        artifact_id=body.artifact_id,
        error=body.error,
        execution_time_ms=body.execution_time_ms,
    )


def _artifact_to_wire(body: ArtifactCreated) -> pb.ArtifactCreated:
    return pb.ArtifactCreated(
        artifact_id=body.artifact_id,
        name=body.name,
        media_type=body.media_type,
        size_bytes=body.size_bytes,
        description=body.description,
    )


def _requested_to_wire(body: ApprovalRequested) -> pb.ApprovalRequested:
    return pb.ApprovalRequested(
        approval_id=body.approval_id,
        tool_name=body.tool_name,
        tool_args=to_struct(body.tool_args),
        reason=body.reason,
        expire_time=to_timestamp(body.expire_time),
    )


def _resolved_to_wire(body: ApprovalResolved) -> pb.ApprovalResolved:
    return pb.ApprovalResolved(
        approval_id=body.approval_id,
        decision=DECISIONS.to_wire(body.decision),
        decided_by=body.decided_by,
        comment=body.comment,
    )


def _response_to_wire(body: FinalResponse) -> pb.FinalResponse:
    return pb.FinalResponse(
        message_id=body.message_id,
        content=body.content,
        source=SOURCES.to_wire(body.source),
        degraded=body.degraded,
        missing_data=body.missing_data,
        suggestions=body.suggestions,
        artifact_ids=body.artifact_ids,
    )


def _completed_to_wire(body: AgentCompleted) -> pb.AgentCompleted:
    return pb.AgentCompleted(
        agent_id=body.agent_id,
        status=COMPLETIONS.to_wire(body.status),
        message=body.message,
        execution_time_ms=body.execution_time_ms,
        usage=_usage_to_wire(body.usage),
    )


def _error_to_wire(body: AgentError) -> pb.AgentError:
    return pb.AgentError(
        reason=REASONS.to_wire(body.reason),
        error_id=body.error_id,
        message=body.message,
        retryable=body.retryable,
        recovery_suggestions=body.recovery_suggestions,
        execution_time_ms=body.execution_time_ms,
        usage=_usage_to_wire(body.usage),
    )


def _usage_to_wire(usage: Usage) -> pb.Usage:
    return pb.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        model_requests=usage.model_requests,
        tool_calls=usage.tool_calls,
        cost_usd=round(usage.cost_usd, MONEY_DECIMALS),
    )


def _started(wire: pb.AgentEvent) -> AgentStarted:
    body = wire.agent_started
    return AgentStarted(body.agent_id, body.message, body.user_message_id)


def _progress(wire: pb.AgentEvent) -> AgentProgress:
    body = wire.agent_progress
    return AgentProgress(
        stage=STAGES.to_domain(body.stage),
        message=body.message,
        step=body.step,
        total_steps=body.total_steps,
        fraction=body.fraction,
        queue_position=body.queue_position,
        tool_call_id=body.tool_call_id,
        intent=body.intent,
        confidence=body.confidence,
        planned_steps=tuple(PlannedStep(step.agent_name, step.description) for step in body.planned_steps),
        discard_partial=body.discard_partial,
    )


def _thinking(wire: pb.AgentEvent) -> AgentThinking:
    body = wire.agent_thinking
    return AgentThinking(body.thought, body.step, body.total_steps)


def _handoff(wire: pb.AgentEvent) -> AgentHandoff:
    body = wire.agent_handoff
    return AgentHandoff(body.from_agent, body.to_agent, body.reason)


def _executing(wire: pb.AgentEvent) -> ToolExecuting:
    body = wire.tool_executing
    effect = EFFECTS.to_domain(body.effect)
    return ToolExecuting(body.tool_call_id, body.tool_name, body.description, from_struct(body.tool_args), effect)


def _completed_tool(wire: pb.AgentEvent) -> ToolCompleted:
    body = wire.tool_completed
    return ToolCompleted(
        tool_call_id=body.tool_call_id,
        tool_name=body.tool_name,
        status=TOOL_STATUSES.to_domain(body.status),
        result_summary=body.result_summary,
        result=from_struct(body.result) if body.HasField("result") else None,
        artifact_id=body.artifact_id,
        error=body.error,
        execution_time_ms=body.execution_time_ms,
    )


def _partial(wire: pb.AgentEvent) -> PartialResult:
    return PartialResult(wire.partial_result.message_id, wire.partial_result.text)


def _artifact(wire: pb.AgentEvent) -> ArtifactCreated:
    body = wire.artifact_created
    return ArtifactCreated(body.artifact_id, body.name, body.media_type, body.size_bytes, body.description)


def _requested(wire: pb.AgentEvent) -> ApprovalRequested:
    body = wire.approval_requested
    return ApprovalRequested(
        approval_id=body.approval_id,
        tool_name=body.tool_name,
        tool_args=from_struct(body.tool_args),
        reason=body.reason,
        expire_time=to_datetime(body.expire_time),
    )


def _resolved(wire: pb.AgentEvent) -> ApprovalResolved:
    body = wire.approval_resolved
    return ApprovalResolved(body.approval_id, DECISIONS.to_domain(body.decision), body.decided_by, body.comment)


def _response(wire: pb.AgentEvent) -> FinalResponse:
    body = wire.final_response
    return FinalResponse(
        message_id=body.message_id,
        content=body.content,
        source=SOURCES.to_domain(body.source),
        degraded=body.degraded,
        missing_data=tuple(body.missing_data),
        suggestions=tuple(body.suggestions),
        artifact_ids=tuple(body.artifact_ids),
    )


def _completed(wire: pb.AgentEvent) -> AgentCompleted:
    body = wire.agent_completed
    status = COMPLETIONS.to_domain(body.status)
    return AgentCompleted(body.agent_id, status, body.message, body.execution_time_ms, _usage(body.usage))


def _error(wire: pb.AgentEvent) -> AgentError:
    body = wire.agent_error
    return AgentError(
        reason=REASONS.to_domain(body.reason),
        error_id=body.error_id,
        message=body.message,
        retryable=body.retryable,
        recovery_suggestions=tuple(body.recovery_suggestions),
        execution_time_ms=body.execution_time_ms,
        usage=_usage(body.usage),
    )


def _usage(wire: pb.Usage) -> Usage:
    return Usage(
        input_tokens=wire.input_tokens,
        output_tokens=wire.output_tokens,
        cached_tokens=wire.cached_tokens,
        model_requests=wire.model_requests,
        tool_calls=wire.tool_calls,
        cost_usd=wire.cost_usd,
    )


BODY_READERS: Final[Mapping[str, Callable[[pb.AgentEvent], Body]]] = {
    "agent_started": _started,
    "agent_progress": _progress,
    "agent_thinking": _thinking,
    "agent_handoff": _handoff,
    "tool_executing": _executing,
    "tool_completed": _completed_tool,
    "partial_result": _partial,
    "artifact_created": _artifact,
    "approval_requested": _requested,
    "approval_resolved": _resolved,
    "final_response": _response,
    "agent_completed": _completed,
    "agent_error": _error,
}
