"""What a tool is: a typed, described function with a declared effect."""

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from pydantic import BaseModel

from agent_service.engine.commands import Reference
from agent_service.engine.events import Effect, JsonObject

DEFAULT_TIMEOUT_MS: Final = 20_000
"""Of one call, with its wait for whatever it needs."""

ArgsT = TypeVar("ArgsT", bound=BaseModel)


class ToolError(Exception):
    """A tool could not do what was asked. The text goes to the model and the user: what happened, what to do."""


class ToolProgress(Protocol):
    """Reports how far a tool is."""

    async def __call__(self, message: str, fraction: float = 0.0) -> None:
        """`fraction` is from 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class ToolRecord:
    """A call of this run that ended well: what later agents and tools may cite, by its `tool_call_id`.

    `args` are those that the events show. `result` is None where it was too large and became the artifact instead.
    """

    tool_call_id: str
    agent_name: str
    tool_name: str
    args: JsonObject
    summary: str
    result: JsonObject | None
    artifact_id: str = ""


class Artifacts(Protocol):
    """Where a tool puts the files that it makes. They belong to the user, and `artifact_created` tells of them."""

    async def save(
        self, name: str, media_type: str, content: bytes | AsyncIterable[bytes], *, description: str = ""
    ) -> str:
        """Keep a file and return its artifact id.

        The id follows from the call and the name: a call that runs again after a crash finds its file there, and
        tells of it once. Raises `ToolError` for content that is larger than an artifact may be.
        """
        ...


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know. `tool_call_id` is the idempotency key of the call.

    `records` returns the calls of this run that ended well, oldest first.
    """

    user_id: str
    scopes: frozenset[str]
    run_id: str
    thread_id: str
    tool_call_id: str
    message: str
    references: tuple[Reference, ...]
    progress: ToolProgress
    artifacts: Artifacts
    records: Callable[[], Sequence[ToolRecord]]


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool found. `summary` is one line for people; `result` is what the model and the user read."""

    summary: str
    result: JsonObject


@dataclass(frozen=True, slots=True)
class Tool(Generic[ArgsT]):
    """A tool: `args` is its argument schema; `run` must stop promptly when it is cancelled.

    `description` is for the model and, in its first sentence, for people. `timeout_ms` bounds one call.
    `needs_approval` says, for checked arguments, why a person must decide about the call first; empty: nobody must.
    `is_live`: its result changes while the user's files and knowledge bases stay the same, so that no answer made of
    it is given again.
    """

    name: str
    description: str
    args: type[ArgsT]
    effect: Effect
    timeout_ms: int
    run: Callable[[ToolContext, ArgsT], Awaitable[ToolOutput]]
    scopes: frozenset[str] = field(default_factory=frozenset)
    needs_approval: Callable[[ArgsT], str] | None = None
    is_live: bool = False


def define_tool(
    name: str,
    description: str,
    args: type[ArgsT],
    run: Callable[[ToolContext, ArgsT], Awaitable[ToolOutput]],
    *,
    effect: Effect = Effect.READ_ONLY,
    timeout_ms: int = DEFAULT_TIMEOUT_MS,
    scopes: frozenset[str] = frozenset(),
    needs_approval: Callable[[ArgsT], str] | None = None,
) -> Tool[BaseModel]:
    """Return a tool as the registry takes it: called with any model, `run` gets arguments of its own type."""

    def own(given: BaseModel) -> ArgsT:
        return given if isinstance(given, args) else args.model_validate(given.model_dump())

    async def run_own(context: ToolContext, given: BaseModel) -> ToolOutput:
        return await run(context, own(given))

    def reason(given: BaseModel) -> str:
        return needs_approval(own(given)) if needs_approval is not None else ""

    asks = reason if needs_approval else None
    return Tool(name, description, args, effect, timeout_ms, run_own, scopes, asks)
