"""The README's own tool and own agent, taken from it word for word, installed as a package, and run."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

from agent_service.agents.data import DATA
from agent_service.engine.events import ToolCompleted, ToolStatus
from agent_service.llm.loop import ModelLoop
from agent_service.llm.models import Models
from agent_service.mcp_servers import read_mcp_servers
from agent_service.plugins import Plugins, load_plugins
from agent_service.specialists import OWN_AGENTS
from tests.support.canned_tools import CannedTools
from tests.support.conversations import AGENTS, Bench
from tests.support.openai_server import OPENAI
from tests.support.plugin_packages import install
from tests.support.provider_agents import Part, ProvidedAgents
from tests.support.provider_server import Call, ProviderServer

README: Final = Path(__file__).parents[1] / "README.md"
MAX_LINES: Final = 30
PROJECT: Final = '[project]\nname = "mine"\n'


def section(heading: str) -> str:
    """Return what stands between this heading and the next."""
    text = README.read_text(encoding="utf-8")
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)",
        re.sub(r"^# my_", "#_my_", text, flags=re.MULTILINE),
        re.DOTALL | re.MULTILINE,
    )
    assert found, f"README.md has no section {heading!r}"
    return found[1].replace("#_my_", "# my_")


def block(text: str, language: str) -> str:
    """Return the section's one block in this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(found)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """The README's package, installed."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    tool, agent = section("Add your own tool"), section("Add your own agent")
    (source / "my_tools.py").write_text(block(tool, "python"))
    (source / "my_agents.py").write_text(block(agent, "python"))
    (source / "pyproject.toml").write_text(PROJECT + block(tool, "toml") + block(agent, "toml"))
    install(source, target)
    monkeypatch.syspath_prepend(target)
    return load_plugins(OWN_AGENTS, CannedTools().make(DATA.tools), step_timeout_ms=30_000)


@pytest.mark.parametrize("heading", ["Add your own tool", "Add your own agent"])
def test_it_is_short(heading: str) -> None:
    assert len(section(heading).strip().splitlines()) < MAX_LINES


async def test_the_tool_and_the_agent_work(plugins: Plugins) -> None:
    assert plugins.left_out == ()
    (agent,) = plugins.agents
    call = Call("energy_estimate", '{"tokens": 2000000, "kwh_per_million": 1.5}')
    script = ProvidedAgents(OPENAI, [Part(agent, [call], "Three kWh.")])
    async with ProviderServer(script) as server:
        models = Models([OPENAI.model], accounts={"openai": OPENAI.account(server.url)})
        tools = [*CannedTools().make(), *plugins.tools]
        async with Bench(loop=ModelLoop(models), agents=[*AGENTS, agent], tools=tools) as bench:
            told = await bench.ask("How much was it?", agent=agent.name)
        await models.aclose()
    (completed,) = told.bodies(ToolCompleted)
    assert (completed.status, completed.result) == (ToolStatus.SUCCESS, {"kwh": 3.0})
    assert told.final.content == "Three kWh."


def test_the_mcp_servers_are_read() -> None:
    given = block(section("MCP servers"), "json")
    assert list(read_mcp_servers(given)) == list(json.loads(given)) == ["files", "wiki"]
