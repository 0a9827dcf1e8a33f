"""The agents and tools that ship: one line for each agent, one for each family of tools."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from agent_service.agents.actions import ACTIONS
from agent_service.agents.corpus_admin import CORPUS_ADMIN
from agent_service.agents.data import DATA
from agent_service.agents.optimizations import OPTIMIZATIONS
from agent_service.agents.reporting import REPORTING
from agent_service.agents.supervisor import SUPERVISOR
from agent_service.agents.synthetic_data import SYNTHETIC_DATA
from agent_service.agents.triage import TRIAGE
from agent_service.engine.artifacts import MAX_ARTIFACT_BYTES
from agent_service.engine.clock import SystemIds
from agent_service.engine.ports import Clock
from agent_service.engine.tool import Tool
from agent_service.tools.actions.tools import action_tools
from agent_service.tools.actions.webhook import Webhook
from agent_service.tools.analysis import Workbench
from agent_service.tools.corpus.tools import corpus_tools
from agent_service.tools.data import NO_DATABASES, data_tools
from agent_service.tools.optimization.tools import optimization_tools
from agent_service.tools.reporting.tools import reporting_tools
from agent_service.tools.sandbox import Sandbox, SandboxLimits
from agent_service.tools.synthetic.tools import synthetic_tools
from storage.interfaces import Storage

OWN_AGENTS: Final = (SUPERVISOR, TRIAGE, DATA, OPTIMIZATIONS, ACTIONS, REPORTING, CORPUS_ADMIN, SYNTHETIC_DATA)
"""The supervisor, and the agents that it hands requests to."""


def _writing() -> Sandbox:
    return Sandbox(SandboxLimits(max_children=1, max_written_bytes=MAX_ARTIFACT_BYTES))


@dataclass(frozen=True, slots=True)
class Workplace:
    """The processes that tools work in: those of `reader` read datasets, that of `maker` writes one."""

    reader: Sandbox = field(default_factory=Sandbox)
    maker: Sandbox = field(default_factory=_writing)

    async def close(self) -> None:
        """End all of them, and wait until they are gone."""
        await asyncio.gather(self.reader.close(), self.maker.close())


def own_tools(
    storage: Storage,
    place: Workplace,
    clock: Clock,
    databases: Mapping[str, str] = NO_DATABASES,
    webhook: Webhook | None = None,
) -> tuple[Tool[BaseModel], ...]:
    """Return the tools that ship.

    `clock` dates the prices of requests without a time; `databases` (name → URL) are those that may be looked at;
    `webhook` is where policies are applied, None where nothing is configured.
    """
    bench = Workbench(storage.files, place.reader, clock)
    return (
        *data_tools(bench, databases),
        *optimization_tools(bench),
        *corpus_tools(storage.corpora, storage.files, clock, SystemIds()),
        *synthetic_tools(bench, place.maker),
        *action_tools(storage.plans, storage.files, clock, webhook),
        *reporting_tools(clock),
    )
