"""A `StepSink` in memory: real behaviour without a run, a log or a dispatcher, and a list of what happened."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from agent_service.engine.events import JsonObject, ToolStatus, Usage
from agent_service.engine.ports import ToolCall, ToolOutcome

Answer = Callable[[ToolCall], Awaitable[JsonObject]]


@dataclass(slots=True)
class MemorySink:
    """Runs tools as functions. A call whose id has an outcome returns it without running again, as the log does."""

    tools: Mapping[str, Answer] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    outcomes: dict[str, ToolOutcome] = field(default_factory=dict)
    ran: list[ToolCall] = field(default_factory=list)
    state: bytes | None = None
    usage: Usage = field(default_factory=Usage)
    answer: str = ""

    async def thought(self, text: str) -> None:
        if text.strip():
            self.log.append(("thought", text.strip()))

    async def text(self, piece: str) -> None:
        self.log.append(("text", piece))
        self.answer += piece

    async def discard_text(self) -> None:
        self.log.append(("discard", self.answer))
        self.answer = ""

    async def call_tool(self, call: ToolCall) -> ToolOutcome:
        known = self.outcomes.get(call.call_id)
        if known is not None:
            return known
        self.log.append(("call", call.tool_name))
        self.ran.append(call)
        result = await self.tools[call.tool_name](call)
        outcome = ToolOutcome(ToolStatus.SUCCESS, f"{call.tool_name} done", result, "")
        self.outcomes[call.call_id] = outcome
        self.log.append(("done", call.tool_name))
        return outcome

    def save(self, state: bytes) -> None:
        self.log.append(("save", ""))
        self.state = state

    async def before_model_request(self) -> None:
        self.log.append(("request", ""))

    def used(self, usage: Usage) -> None:
        self.usage += usage

    def kinds(self) -> list[str]:
        """Return what happened, by kind, repeats in a row once."""
        kinds = [kind for kind, _ in self.log]
        return [kind for number, kind in enumerate(kinds) if number == 0 or kind != kinds[number - 1]]
