"""The agents and tools of this process, by name: made once at start, checked as a whole."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from pydantic import BaseModel

from agent_service.engine.agent import Agent
from agent_service.engine.tool import Tool

NamedT = TypeVar("NamedT", Agent, Tool[BaseModel])


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of others that is not in the registry, so that the service can start without it.

    `source` says what it is and whose; `reason` is for operators.
    """

    source: str
    reason: str


class RegistryError(Exception):
    """The agents and tools do not fit together. The text lists every problem."""


class Registry:
    """Raises `RegistryError` for a name that is taken, and for an agent's tool that does not exist."""

    agents: Mapping[str, Agent]
    tools: Mapping[str, Tool[BaseModel]]

    def __init__(self, agents: Iterable[Agent], tools: Iterable[Tool[BaseModel]]) -> None:
        problems: list[str] = []
        self.agents = MappingProxyType(_by_name("agent", agents, problems))
        self.tools = MappingProxyType(_by_name("tool", tools, problems))
        for agent in self.agents.values():
            problems += [
                f"agent {agent.name!r} wants the tool {name!r}, which does not exist"
                for name in agent.tools
                if name not in self.tools
            ]
        if problems:
            raise RegistryError("; ".join(problems))

    @property
    def live_tools(self) -> frozenset[str]:
        """The names of the tools whose results change by themselves."""
        return frozenset(tool.name for tool in self.tools.values() if tool.is_live)

    def tools_of(self, agent: Agent) -> tuple[Tool[BaseModel], ...]:
        """Return the agent's tools, in the order of its declaration."""
        return tuple(self.tools[name] for name in agent.tools)


def _by_name(kind: str, things: Iterable[NamedT], problems: list[str]) -> dict[str, NamedT]:
    found: dict[str, NamedT] = {}
    for thing in things:
        if thing.name in found:
            problems.append(f"two {kind}s are called {thing.name!r}")
        found[thing.name] = thing
    return found
