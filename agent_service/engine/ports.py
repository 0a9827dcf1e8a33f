"""What the engine asks of the world around it; `app.py` hands in the implementations."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel

from agent_service.engine.agent import Agent
from agent_service.engine.commands import Reference, RunCommand, RunSettings
from agent_service.engine.events import Event, JsonObject, ToolStatus, Usage
from agent_service.engine.tool import Tool, ToolRecord
from storage.records import MessageRole


class Clock(Protocol):
    """Time. `now` is UTC; `monotonic_ms` only measures spans."""

    def now(self) -> datetime:
        """Return the current time."""
        ...

    def monotonic_ms(self) -> int:
        """Return milliseconds from an arbitrary start that never go back."""
        ...


class Ids(Protocol):
    """New ids."""

    def new(self) -> str:
        """Return a new UUIDv7."""
        ...


class EventCodec(Protocol):
    """The contract's encoding. What it encoded it decodes, for ever."""

    def encode(self, event: Event) -> bytes:
        """Return the bytes that every reader will get."""
        ...

    def decode(self, data: bytes) -> Event:
        """Return the event."""
        ...

    def encode_command(self, command: RunCommand) -> bytes:
        """Return the bytes that the runs table keeps."""
        ...

    def decode_command(self, data: bytes) -> RunCommand:
        """Return the command."""
        ...


@dataclass(frozen=True, slots=True)
class EarlierResult:
    """A tool call of an earlier run that ended well, by reference: what it found stands in the log of that run."""

    tool_call_id: str
    tool_name: str
    summary: str
    artifact_id: str = ""


@dataclass(frozen=True, slots=True)
class HistoryMessage:
    """An earlier message of the thread, and the run that it belongs to. An answer names what it was made from."""

    role: MessageRole
    content: str
    run_id: str = ""
    results: Sequence[EarlierResult] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What an earlier step of this run found: its typed output as JSON, `{"text": …}`, or `{"failed": why}`.

    `evidence` are the step's tool calls that ended well: where its numbers come from.
    """

    agent_name: str
    output: JsonObject
    evidence: tuple[ToolRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool. `call_id` is the model's own id, unique within one step."""

    call_id: str
    tool_name: str
    args: JsonObject


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What the model is told: exactly what the user sees in `tool_completed`."""

    status: ToolStatus
    summary: str
    result: JsonObject | None
    error: str


@dataclass(frozen=True, slots=True)
class Step:
    """One agent's turn. `resume` is the loop's own state from a checkpoint of this very step, if any.

    `writes_answer` is set on the one step whose text is streamed to the user as the answer.
    """

    agent: Agent
    tools: tuple[Tool[BaseModel], ...]
    prompt: str
    history: Sequence[HistoryMessage]
    findings: Sequence[Finding]
    references: tuple[Reference, ...]
    context: JsonObject
    settings: RunSettings
    now: datetime
    writes_answer: bool
    resume: bytes | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """A finished step: the typed output (an instance of `agent.output`), or text."""

    output: BaseModel | str


class StepSink(Protocol):
    """What a loop may do to the outside while it works on a step. Every method may raise; let it through."""

    async def thought(self, text: str) -> None:
        """Show one piece of reasoning: a sentence or more, not a token."""
        ...

    async def text(self, piece: str) -> None:
        """Stream the next piece of the answer; only where the step writes the answer."""
        ...

    async def discard_text(self) -> None:
        """Take back the answer's text so far: the model called a tool after all."""
        ...

    async def call_tool(self, call: ToolCall) -> ToolOutcome:
        """Run a tool through the dispatcher. May be called for several calls at once.

        A call that the log already shows as completed returns its logged outcome without running again.
        """
        ...

    def save(self, state: bytes) -> None:
        """Set the loop's state: it is committed with the next event, so that a new worker goes on from it."""
        ...

    async def before_model_request(self) -> None:
        """Call before each request to a model. Raises `ApexError(BUDGET_EXCEEDED)` when the budget is used up."""
        ...

    def used(self, usage: Usage) -> None:
        """Add what a model request consumed (not tool calls)."""
        ...


class AgentLoop(Protocol):
    """Runs one step of one agent against a language model. Implemented in `llm/loop.py`."""

    async def run(self, step: Step, sink: StepSink) -> StepResult:
        """Work until the model has answered. Raises `ApexError(MODEL_UNAVAILABLE)`; cancellation passes through."""
        ...

    def fallbacks(self, model: str = "") -> tuple[str, ...]:
        """Return the models to go on with, in this order, when this one (empty: the default) is down."""
        ...
