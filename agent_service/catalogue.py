"""What a service offers: language models, agents and tools, of ours and of others."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, Gauge
from pydantic import BaseModel, SecretStr

from agent_service.engine.agent import Agent
from agent_service.engine.registry import LeftOut, Registry
from agent_service.engine.tool import Tool
from agent_service.llm.circuits import Circuit
from agent_service.llm.models import Models
from agent_service.llm.providers import ANTHROPIC, OPENAI, Account
from agent_service.plugins import load_plugins
from agent_service.settings import Settings
from agent_service.tools.mcp import open_mcp_tools


@asynccontextmanager
async def open_models(settings: Settings, metrics: CollectorRegistry) -> AsyncIterator[Models]:
    """Yield the language models that the settings name. Raises `ModelSetupError`."""
    models = Models(
        settings.model_names,
        fallback=settings.fallback_model,
        larger=settings.larger_model,
        accounts={
            OPENAI: Account(settings.openai_base_url, _revealed(settings.openai_api_key)),
            ANTHROPIC: Account(settings.anthropic_base_url, _revealed(settings.anthropic_api_key)),
        },
    )
    resting = Gauge("apex_provider_resting", "1: left alone after failures.", ["provider"], registry=metrics)
    for provider, circuit in models.circuits.items():
        resting.labels(provider).set_function(partial(_is_resting, circuit))
    try:
        yield models
    finally:
        await models.aclose()


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


def _is_resting(circuit: Circuit) -> float:
    return 0.0 if circuit.is_closed else 1.0


@asynccontextmanager
async def open_registry(
    settings: Settings, agents: Sequence[Agent], tools: Sequence[Tool[BaseModel]], metrics: CollectorRegistry
) -> AsyncIterator[Registry]:
    """Yield what is given together with what plug-ins and MCP servers bring; tell operators what is left out.

    Raises `RegistryError` where what is given does not fit together.
    """
    async with open_mcp_tools(settings.mcp_servers) as mcp:
        known_tools = [*tools, *mcp.tools]
        step_timeout_ms = round(settings.agent_execution_timeout_s * 1000)
        plugins = load_plugins(agents, known_tools, step_timeout_ms=step_timeout_ms)
        by_name = {agent.name: agent for agent in (*agents, *plugins.agents)}
        absent = [
            LeftOut(f"MCP servers for the agent {name!r}", "there is no such agent")
            for name in mcp.by_agent
            if name not in by_name
        ]
        _tell(metrics, (*mcp.left_out, *plugins.left_out, *absent))
        everyone = [
            replace(agent, tools=(*agent.tools, *mcp.by_agent.get(agent.name, ())))
            for agent in (*agents, *plugins.agents)
        ]
        yield Registry(everyone, [*known_tools, *plugins.tools])


def _tell(metrics: CollectorRegistry, left_out: Sequence[LeftOut]) -> None:
    gauge = Gauge("apex_left_out", "Plug-ins and MCP servers that are left out.", ["source"], registry=metrics)
    for one in left_out:
        structlog.get_logger("apex").warning("left_out", source=one.source, reason=one.reason)
        gauge.labels(one.source).set(1)
