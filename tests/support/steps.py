"""A step of an agent with canned tools, for tests of what works on steps."""

from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel

from agent_service.agents.data import DATA
from agent_service.engine.agent import Agent
from agent_service.engine.commands import RunSettings
from agent_service.engine.events import JsonObject
from agent_service.engine.ports import Step, ToolCall
from agent_service.engine.tool import Tool
from tests.support.canned_tools import RESULT, CannedTools
from tests.support.step_sinks import MemorySink

WRITER: Final = Agent("writer", "Writer", "Writes.", "Write.", ("usage_summary", "cost_breakdown"))


def step(agent: Agent = WRITER, tools: tuple[Tool[BaseModel], ...] | None = None, *, model: str = "") -> Step:
    """Return a step that writes the answer."""
    return Step(
        agent=agent,
        tools=CannedTools().make(agent.tools) if tools is None else tools,
        prompt="What does it cost?",
        history=(),
        findings=(),
        references=(),
        context={},
        settings=RunSettings(model=model),
        now=datetime(2026, 6, 1, tzinfo=UTC),
        writes_answer=True,
    )


def sink(*more_tools: str) -> MemorySink:
    """Return a sink whose tools answer with `RESULT`: those of the data agent, and more."""

    async def canned(_: ToolCall) -> JsonObject:
        return RESULT

    return MemorySink(dict.fromkeys((*DATA.tools, *more_tools), canned))
