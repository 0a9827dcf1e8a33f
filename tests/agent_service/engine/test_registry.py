"""Agents and tools by name, checked as a whole at start."""

import pytest

from agent_service.agents.data import DATA
from agent_service.agents.supervisor import SUPERVISOR
from agent_service.agents.triage import TRIAGE
from agent_service.engine.agent import Agent
from agent_service.engine.registry import Registry, RegistryError
from tests.support.canned_tools import CannedTools


def test_the_shipped_agents_fit_together() -> None:
    registry = Registry([SUPERVISOR, TRIAGE, DATA], CannedTools().make())
    assert list(registry.agents) == ["supervisor", "triage", "data"]
    assert [tool.name for tool in registry.tools_of(TRIAGE)] == ["list_datasets", "describe_dataset"]
    assert registry.tools_of(SUPERVISOR) == ()


def test_every_problem_is_told_at_once() -> None:
    agent = Agent("a", "A", "", "", ("one", "two"))
    tools = CannedTools().make(["one", "one"])
    with pytest.raises(RegistryError) as caught:
        Registry([agent, agent], tools)
    assert str(caught.value) == (
        "two agents are called 'a'; two tools are called 'one'; agent 'a' wants the tool 'two', which does not exist"
    )
