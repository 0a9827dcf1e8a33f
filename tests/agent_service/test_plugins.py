"""Agents and tools of other packages: what is taken in, and what is left out with a reason."""

import hashlib
from pathlib import Path
from typing import Final

import pytest
from structlog.testing import capture_logs

from agent_service.agents.data import DATA
from agent_service.app import open_app
from agent_service.engine.commands import RunCommand
from agent_service.plugins import MAX_REASON_CHARACTERS, Plugins, load_plugins
from agent_service.settings import load_settings
from agent_service.specialists import OWN_AGENTS
from tests.support.canned_tools import CannedTools
from tests.support.plugin_packages import EXAMPLE, install, make
from tests.support.workshop import ANN

HEAD: Final = """
from pydantic import BaseModel
from agent_service.engine.agent import Agent
from agent_service.engine.tool import ToolOutput, define_tool

class Nothing(BaseModel):
    pass

async def run(context, args):
    return ToolOutput("done", {})

def tool(name, **more):
    return define_tool(name, "Does it.", Nothing, run, **more)

def agent(name, *tools):
    return Agent(name, "Title", "Does it.", "Do it.", tools)
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def load(step_timeout_ms: int = 30_000) -> Plugins:
    return load_plugins(OWN_AGENTS, CannedTools().make(DATA.tools), step_timeout_ms=step_timeout_ms)


def test_without_plug_ins_there_is_nothing() -> None:
    assert load() == Plugins((), (), ())


def test_a_package_brings_a_tool_and_an_agent(packages: Path) -> None:
    install(EXAMPLE, packages)
    found = load()
    assert [tool.name for tool in found.tools] == ["energy_estimate"]
    assert [agent.name for agent in found.agents] == ["energy"]
    assert found.left_out == ()


def test_what_a_package_s_tool_returns_may_change_by_itself(packages: Path) -> None:
    install(EXAMPLE, packages)
    assert [tool.is_live for tool in load().tools] == [True]


@pytest.mark.parametrize(
    "value",
    ['tool("t_one")', '[tool("t_one")]', '(tool("t_one"),)', 'lambda: tool("t_one")', 'lambda: iter([tool("t_one")])'],
    ids=["one", "list", "tuple", "function", "generator"],
)
def test_an_entry_point_is_one_several_or_a_function(
    value: str, packages: Path, request: pytest.FixtureRequest
) -> None:
    name = f"forms_{request.node.callspec.id}"
    make(packages, name, f"{HEAD}\nGIVEN = {value}\n", {"apex.tools": {"forms": f"{name}:GIVEN"}})
    assert [tool.name for tool in load().tools] == ["t_one"]


BROKEN: Final = {
    "import_error": ("raise ImportError('no libfoo')", "ImportError: no libfoo"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "absent": ("", "AttributeError"),
    "function": ("def GIVEN():\n    raise KeyError('x')", "KeyError: 'x'"),
    "function_args": ("def GIVEN(needed):\n    pass", "TypeError"),
    "wrong_type": ("GIVEN = 'usage'", "it gives str, not Tool"),
    "wrong_item": ("GIVEN = [tool('t_one'), 3]", "it gives list, not Tool"),
    "empty": ("GIVEN = []", "it gives list, not Tool"),
    "an_agent": ("GIVEN = agent('other')", "it gives Agent, not Tool"),
    "taken": ("GIVEN = tool('usage_summary')", "the name 'usage_summary' is taken"),
    "twice": ("GIVEN = [tool('t_one'), tool('t_one')]", "the name 't_one' is taken"),
    "bad_name": ("GIVEN = tool('my tool')", "the name 'my tool' must be"),
    "long_name": (f"GIVEN = tool('{'t' * 65}')", "must be 1 to 64"),
    "slow": ("GIVEN = tool('t_one', timeout_ms=30_000)", "must take less than a step, 30000 ms"),
    "verbose": (f"raise ValueError('{'x' * 2 * MAX_REASON_CHARACTERS}')", "ValueError: xxx"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_tool_is_left_out_with_the_reason(name: str, packages: Path) -> None:
    code, reason = BROKEN[name]
    make(packages, f"broken_{name}", f"{HEAD}\n{code}\n", {"apex.tools": {"bad": f"broken_{name}:GIVEN"}})
    install(EXAMPLE, packages)
    found = load()
    assert [tool.name for tool in found.tools] == ["energy_estimate"]
    (left_out,) = found.left_out
    assert left_out.source == f"plug-in 'bad' of broken_{name} (apex.tools)"
    assert reason in left_out.reason
    assert len(left_out.reason) <= MAX_REASON_CHARACTERS


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        ("agent('mine', 'no_such_tool')", "its agent 'mine' wants the tool 'no_such_tool'"),
        ("agent('data')", "the name 'data' is taken"),
        ("agent('supervisor')", "the name 'supervisor' is taken"),
    ],
    ids=["unknown-tool", "taken", "supervisor"],
)
def test_a_broken_agent_is_left_out_with_the_reason(agent: str, reason: str, packages: Path) -> None:
    name = f"agent_{hashlib.sha256(agent.encode()).hexdigest()}"
    make(packages, name, f"{HEAD}\nGIVEN = {agent}\n", {"apex.agents": {"bad": f"{name}:GIVEN"}})
    (left_out,) = load().left_out
    assert reason in left_out.reason


def test_an_agent_whose_own_tool_is_left_out_is_left_out_too(packages: Path) -> None:
    code = f"{HEAD}\nTOOL = tool('usage_summary')\nAGENT = agent('mine', 'mine_only')\n"
    make(packages, "both_bad", code, {"apex.tools": {"t": "both_bad:TOOL"}, "apex.agents": {"a": "both_bad:AGENT"}})
    assert [one.source.partition(" of ")[0] for one in load().left_out] == ["plug-in 't'", "plug-in 'a'"]


async def test_the_service_starts_without_what_is_broken_and_tells_operators(packages: Path, tmp_path: Path) -> None:
    install(EXAMPLE, packages)
    make(packages, "broken_at_start", "raise ImportError('no libfoo')", {"apex.tools": {"bad": "broken_at_start:X"}})
    servers = '{"files": {"command": "/no/such/program"}}'
    environ = {
        "APEX_DATA_DIR": str(tmp_path / "data"),
        "APEX_GRPC_ADDRESS": "127.0.0.1:0",
        "APEX_MCP_SERVERS": servers,
    }
    with capture_logs() as logs:
        async with open_app(load_settings(environ)) as app:
            # An agent that is not there would be refused.
            await app.runs.accept(ANN, RunCommand("hello", agent="energy"))
    told = {entry["source"]: entry["reason"] for entry in logs if entry["event"] == "left_out"}
    assert told["plug-in 'bad' of broken_at_start (apex.tools)"] == "ImportError: no libfoo"
    assert "cannot be reached" in told["MCP server 'files'"]
