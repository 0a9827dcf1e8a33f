"""A service with one more agent, one more tool and another model; run with `python -m`.

The agent `clumsy` writes before it has looked, shows no thought, and its tool returns more than an event holds.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from pydantic import BaseModel
from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from agent_service import app
from agent_service.engine.agent import Agent
from agent_service.engine.dispatcher import MAX_RESULT_BYTES
from agent_service.engine.events import Effect
from agent_service.engine.tool import Tool, ToolContext, ToolOutput
from agent_service.settings import Settings, load_settings

SILENT: Final = "say nothing first"
"""A message with these words is answered by a tool call at once."""

HANG: Final = "say nothing ever"
"""A message with these words is never answered, by no agent."""

CLUMSY: Final = Agent("clumsy", "Clumsy", "Writes first and looks later.", "Answer.", ("flood",))


class NoArguments(BaseModel):
    """The arguments of a tool that takes none."""


async def flood(_context: ToolContext, _given: BaseModel) -> ToolOutput:
    """Return more than fits into an event."""
    return ToolOutput("A lot.", {"text": "x" * MAX_RESULT_BYTES})


FLOOD: Final[Tool[BaseModel]] = Tool("flood", "Return a lot.", NoArguments, Effect.READ_ONLY, 5_000, flood)


async def speak(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
    """Write, then call the tool, then write anew; or say nothing at all."""
    if HANG in str(messages):
        await asyncio.Event().wait()
    looked = any(
        isinstance(part, ToolReturnPart)
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
    )
    if looked:
        yield "I have looked."
    else:
        if SILENT not in str(messages):
            yield "I know it already"
        yield {1: DeltaToolCall(name="flood", json_args="{}", tool_call_id="f1")}


class ClumsyModels:
    """Implements `ModelSource` with the one model."""

    names = ("clumsy",)

    def fallbacks(self, name: str = "") -> tuple[str, ...]:
        return ()

    def get(self, name: str = "") -> Model:
        return FunctionModel(stream_function=speak)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    """Serve until the block is left."""
    async with app.open_app(settings, agents=[CLUMSY], tools=[FLOOD], models=ClumsyModels()):
        yield


async def main() -> None:
    """Serve until the process is ended."""
    settings = load_settings(os.environ)
    async with serving(settings):
        print(f"clumsy service listening on {settings.grpc_address}", flush=True)  # noqa: T201 - the sign of readiness
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
