"""What a package of somebody else looks like: one tool, which cites an earlier call, and one agent."""

from pydantic import BaseModel, Field

from agent_service.engine.agent import Agent
from agent_service.engine.events import Effect
from agent_service.engine.tool import Tool, ToolContext, ToolError, ToolOutput, define_tool


class Energy(BaseModel):
    """What the estimate needs."""

    tokens: int = Field(ge=0, description="Input and output tokens together.")
    kwh_per_million: float = Field(gt=0, le=1000, description="kWh for a million tokens, as the provider states it.")


async def estimate(_: ToolContext, args: Energy) -> ToolOutput:
    """Multiply. Raises `ToolError` where there is nothing to estimate."""
    if not args.tokens:
        raise ToolError("There are no tokens to estimate. Ask usage_summary for them first.")
    kwh = args.tokens / 1_000_000 * args.kwh_per_million
    return ToolOutput(f"{kwh:.2f} kWh", {"kwh": kwh})


def tools() -> list[Tool[BaseModel]]:
    """Return the package's tools."""
    text = "Estimates the energy of a workload. Needs its tokens and what the provider states for a million of them."
    return [define_tool("energy_estimate", text, Energy, estimate, effect=Effect.READ_ONLY)]


ENERGY = Agent(
    name="energy",
    title="Energy",
    description="Estimates what a workload consumes.",
    instructions="You estimate energy. Call usage_summary first, then energy_estimate with its total of tokens.",
    tools=("usage_summary", "energy_estimate"),
)
