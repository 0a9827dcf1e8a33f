"""What a tool is: a typed, described function with a declared effect."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from agent_service.engine.commands import Reference
from agent_service.engine.events import Effect, JsonObject

ArgsT = TypeVar("ArgsT", bound=BaseModel)


class ToolError(Exception):
    """A tool could not do what was asked. The text goes to the model and the user: what happened, what to do."""


class ToolProgress(Protocol):
    """Reports how far a tool is."""

    async def __call__(self, message: str, fraction: float = 0.0) -> None:
        """`fraction` is from 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know. `tool_call_id` is the idempotency key of the call."""

    user_id: str
    scopes: frozenset[str]
    run_id: str
    thread_id: str
    tool_call_id: str
    message: str
    references: tuple[Reference, ...]
    progress: ToolProgress


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool found. `summary` is one line for people; `result` is what the model and the user read."""

    summary: str
    result: JsonObject


@dataclass(frozen=True, slots=True)
class Tool(Generic[ArgsT]):
    """A tool: `args` is its argument schema; `run` must stop promptly when it is cancelled.

    `description` is for the model and, in its first sentence, for people. `timeout_ms` bounds one call.
    """

    name: str
    description: str
    args: type[ArgsT]
    effect: Effect
    timeout_ms: int
    run: Callable[[ToolContext, ArgsT], Awaitable[ToolOutput]]
    scopes: frozenset[str] = field(default_factory=frozenset)
