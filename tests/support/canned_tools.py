"""Tools with the data tools' names and canned results: for tests of what happens around tools."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict

from agent_service.agents.data import DATA
from agent_service.engine.events import Effect, JsonObject
from agent_service.engine.tool import Tool, ToolContext, ToolError, ToolOutput

MISSING_MODEL: Final = {"column": "model", "why_it_matters": "It prices.", "how_to_supply": "Say which."}

RESULT: Final[JsonObject] = {
    "dataset": {"dataset_id": "d1", "name": "log.csv", "rows": 3, "builtin_sample": False},
    "missing": [MISSING_MODEL],
    "sufficiency": {"score": 0.6, "level": "partial"},
    "totals": {"requests": 3, "input_tokens": 1200, "output_tokens": 34, "total_tokens": 1234, "cost_usd": None},
}


class AnyArguments(BaseModel):
    """Takes whatever is passed."""

    model_config = ConfigDict(extra="allow")


@dataclass(slots=True)
class CannedTools:
    """`ran` are the ids of the calls that ran, in order. A `stuck` tool never ends, a `broken` one fails."""

    ran: list[str] = field(default_factory=list)
    stuck: str = ""
    broken: str = ""
    stopped: list[str] = field(default_factory=list)

    def make(self, names: Iterable[str] = DATA.tools) -> tuple[Tool[BaseModel], ...]:
        return tuple(self._tool(name) for name in names)

    def _tool(self, name: str) -> Tool[BaseModel]:
        async def run(context: ToolContext, _: BaseModel) -> ToolOutput:
            self.ran.append(context.tool_call_id)
            if self.stuck == name:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.stopped.append(context.tool_call_id)
            if self.broken == name:
                raise ToolError("The file is broken.")
            return ToolOutput(f"{name} looked", RESULT)

        return Tool(name, f"{name} looks.", AnyArguments, Effect.READ_ONLY, 10_000, run)
