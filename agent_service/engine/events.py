"""The contract's events as the engine sees them: frozen values, one class per kind.

`api/wire.py` maps them to and from the proto. Field names, meaning and limits are those of the proto.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

import msgspec

from agent_service.engine.errors import ErrorReason

JsonValue: TypeAlias = bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None
JsonObject: TypeAlias = Mapping[str, JsonValue]


class ProgressStage(StrEnum):
    """What an `AgentProgress` reports."""

    QUEUED = "queued"
    CLASSIFIED = "classified"
    PLANNED = "planned"
    STEP = "step"
    TOOL = "tool"
    DEGRADED = "degraded"
    RESUMED = "resumed"


class Effect(StrEnum):
    """What a tool call may do to the world; decides whether it may be run again after a crash."""

    READ_ONLY = "read_only"
    IDEMPOTENT = "idempotent"
    UNSAFE = "unsafe"


class ToolStatus(StrEnum):
    """How a tool call ended."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    DENIED = "denied"
    CANCELLED = "cancelled"
    OUTCOME_UNKNOWN = "outcome_unknown"


class ApprovalDecision(StrEnum):
    """How an approval was resolved."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EDITED = "edited"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class AnswerSource(StrEnum):
    """Where a final response comes from."""

    COMPUTED = "computed"
    CACHE = "cache"


class CompletionStatus(StrEnum):
    """How a run that did not fail ended."""

    SUCCESS = "success"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run or a part of it consumed. `cost_usd` is in US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    model_requests: int = 0
    tool_calls: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        """Return the sum of both."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.model_requests + other.model_requests,
            self.tool_calls + other.tool_calls,
            self.cost_usd + other.cost_usd,
        )


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of the plan."""

    agent_name: str
    description: str


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The run is accepted: always seq 1."""

    agent_id: str
    message: str
    user_message_id: str


@dataclass(frozen=True, slots=True)
class AgentProgress:
    """Something moved on. Only `stage` is always meaningful; `fraction` is from 0 to 1."""

    stage: ProgressStage
    message: str = ""
    step: int = 0
    total_steps: int = 0
    fraction: float = 0.0
    queue_position: int = 0
    tool_call_id: str = ""
    intent: str = ""
    confidence: float = 0.0
    planned_steps: tuple[PlannedStep, ...] = ()
    discard_partial: bool = False


@dataclass(frozen=True, slots=True)
class AgentThinking:
    """Visible reasoning."""

    thought: str
    step: int = 0
    total_steps: int = 0


@dataclass(frozen=True, slots=True)
class AgentHandoff:
    """Another agent goes on."""

    from_agent: str
    to_agent: str
    reason: str


@dataclass(frozen=True, slots=True)
class ToolExecuting:
    """A tool is about to run: committed before it does. Secrets in `tool_args` are redacted."""

    tool_call_id: str
    tool_name: str
    description: str
    tool_args: JsonObject
    effect: Effect


@dataclass(frozen=True, slots=True)
class ToolCompleted:
    """A tool call ended: exactly one for each `ToolExecuting`."""

    tool_call_id: str
    tool_name: str
    status: ToolStatus
    result_summary: str = ""
    result: JsonObject | None = None
    artifact_id: str = ""
    error: str = ""
    execution_time_ms: int = 0


@dataclass(frozen=True, slots=True)
class PartialResult:
    """The next piece of the streamed answer."""

    message_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ArtifactCreated:
    """A run made a file that the user can fetch."""

    artifact_id: str
    name: str
    media_type: str
    size_bytes: int
    description: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalRequested:
    """A call waits for a person."""

    approval_id: str
    tool_name: str
    tool_args: JsonObject
    reason: str
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class ApprovalResolved:
    """A person, time or a cancellation decided."""

    approval_id: str
    decision: ApprovalDecision
    decided_by: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class FinalResponse:
    """The saved assistant message, in Markdown."""

    message_id: str
    content: str
    source: AnswerSource = AnswerSource.COMPUTED
    degraded: bool = False
    missing_data: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    artifact_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentCompleted:
    """Terminal: the run ended well or was cancelled."""

    agent_id: str
    status: CompletionStatus
    message: str = ""
    execution_time_ms: int = 0
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class AgentError:
    """Terminal: the run failed. `message` is for the user."""

    reason: ErrorReason
    error_id: str
    message: str
    retryable: bool
    recovery_suggestions: tuple[str, ...] = ()
    execution_time_ms: int = 0
    usage: Usage = field(default_factory=Usage)


Body: TypeAlias = (
    AgentStarted
    | AgentProgress
    | AgentThinking
    | AgentHandoff
    | ToolExecuting
    | ToolCompleted
    | PartialResult
    | ArtifactCreated
    | ApprovalRequested
    | ApprovalResolved
    | FinalResponse
    | AgentCompleted
    | AgentError
)


class Event(msgspec.Struct, frozen=True):
    """A body in its envelope. `seq` counts from 1 without gaps; `attempt` grows when another worker takes over."""

    run_id: str
    thread_id: str
    seq: int
    attempt: int
    emit_time: datetime
    agent_name: str
    body: Body

    @property
    def terminal(self) -> bool:
        """True for the last event of a run."""
        return isinstance(self.body, (AgentCompleted, AgentError))
