"""A provider that plays agents: for each, the tools that it calls in its first turn, and what it says then."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agent_service.agents.triage import TRIAGE
from agent_service.engine.agent import Agent
from agent_service.engine.events import JsonObject
from agent_service.specialists import OWN_AGENTS
from tests.support.provider_server import Asked, Call, Dialect, Reply

TRIAGED: Final[JsonObject] = {
    "category": "cost_analysis",
    "confidence": 0.95,
    "summary": "What the traffic costs.",
    "sufficiency": "sufficient",
    "next_agents": ["data"],
}
"""What triage finds unless a test says otherwise."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the provider says as one agent. `output` is the typed output of an agent that has one.

    In a call's arguments `"@c1"` is the `tool_call_id` of the call `c1` of an earlier agent, as the prompt names it.
    """

    agent: Agent
    calls: Sequence[Call] = ()
    answer: str = "It costs 12 dollars."
    output: JsonObject | None = None


@dataclass(slots=True)
class ProvidedAgents:
    """A script for a `ProviderServer`. Agents without a part here answer at once; triage with `TRIAGED`."""

    dialect: Dialect
    parts: Sequence[Part]
    said: list[str] = field(default_factory=list)
    """The agents that spoke, in order."""

    def __call__(self, asked: Asked) -> Reply:
        part = self._part(asked)
        self.said.append(part.agent.name)
        if part.calls and not _has_called(asked):
            calls = [replace(call, args=_citing(asked, call.args)) for call in part.calls]
            return self.dialect.answer(calls=calls, thought="I look at the data first of all.")
        if part.output is not None:
            return self.dialect.answer(calls=[Call("final_result", json.dumps(part.output), "out")])
        return self.dialect.answer(part.answer)

    def _part(self, asked: Asked) -> Part:
        body = json.dumps(asked.body, ensure_ascii=False)
        own = [Part(TRIAGE, output=TRIAGED), *(Part(agent) for agent in OWN_AGENTS)]
        for part in (*self.parts, *own):
            if json.dumps(part.agent.instructions.strip(), ensure_ascii=False)[1:-1] in body:
                return part
        raise AssertionError(f"nobody's instructions: {body[:2000]}")


def _citing(asked: Asked, args: str) -> str:
    """Return the arguments with the ids that are cited; those that the prompt does not name stay as they are."""
    prompt = json.dumps(asked.body)

    def found(cited: re.Match[str]) -> str:
        known = re.search(rf'tool_call_id\\": \\"([^"\\]+\.{cited[1]})\\"', prompt)
        return f'"{known[1]}"' if known else cited[0]

    return re.sub(r'"@(\w+)"', found, args)


def _has_called(asked: Asked) -> bool:
    messages = asked.body["messages"]
    assert isinstance(messages, list)
    return any(message["role"] == "assistant" for message in messages)
