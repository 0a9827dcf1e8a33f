"""A service whose agent `payer` pays, for which a person must be asked; run with `python -m`.

All but agent, tools and model is the product. What was paid stands in a file outside the service, a line for each time.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import uvloop
from pydantic import BaseModel, Field
from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from agent_service import app
from agent_service.engine.agent import Agent
from agent_service.engine.events import Effect
from agent_service.engine.tool import Tool, ToolContext, ToolOutput
from agent_service.settings import load_settings

PAID_VARIABLE: Final = "PAID_FILE"
PAYER: Final = Agent("payer", "Payer", "Pays bills.", "Pay.", ("pay", "look"))


class Amount(BaseModel):
    """What to pay, in US dollars."""

    amount: int = Field(ge=1, le=100)


def make_tools(paid_file: Path) -> Sequence[Tool[BaseModel]]:
    """Return a tool that pays, and one that only looks."""

    async def pay(_: ToolContext, args: BaseModel) -> ToolOutput:
        assert isinstance(args, Amount)
        with paid_file.open("a") as file:
            file.write(f"{args.amount}\n")
        return ToolOutput(f"Paid {args.amount}.", {"amount": args.amount})

    async def look(_: ToolContext, __: BaseModel) -> ToolOutput:
        return ToolOutput("Looked.", {})

    return (
        Tool("pay", "Pay a bill.", Amount, Effect.UNSAFE, 5_000, pay),
        Tool("look", "Look at bills.", Amount, Effect.READ_ONLY, 5_000, look),
    )


async def speak(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
    """Look and pay at once, then say what came of it."""
    returns = [
        part
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart) and part.tool_name == "pay"
    ]
    if returns:
        yield f"It ended so: {returns[-1].content}"
        return
    yield {0: DeltaToolCall(name="pay", json_args='{"amount": 99}', tool_call_id="p")}
    yield {1: DeltaToolCall(name="look", json_args='{"amount": 1}', tool_call_id="l")}


class PayingModels:
    """Implements `ModelSource` with the one model."""

    names = ("paying",)

    def fallbacks(self, name: str = "") -> tuple[str, ...]:
        return ()

    def get(self, name: str = "") -> Model:
        return FunctionModel(stream_function=speak)


async def main() -> None:
    """Serve until the process is ended."""
    settings = load_settings(os.environ)
    tools = make_tools(Path(os.environ[PAID_VARIABLE]))
    async with app.open_app(settings, agents=[PAYER], tools=tools, models=PayingModels()):
        print(f"paying service listening on {settings.grpc_address}", flush=True)  # noqa: T201 - the sign of readiness
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.setswitchinterval(app.SWITCH_INTERVAL_S)
    uvloop.run(main())
