"""A service process with a package of somebody else, an MCP server and a provider, all of them at work."""

import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc
import pytest

from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1 import agent_pb2_grpc
from tests.support.deployment import ROOT, SECRET
from tests.support.openai_server import OPENAI
from tests.support.plugin_packages import EXAMPLE, install, make
from tests.support.processes import ChildProcess, free_port
from tests.support.provider_server import Asked, Call, ProviderServer, Reply
from tests.support.tokens import make_token

pytestmark = pytest.mark.slow

MCP: Final = {
    "weather": {
        "command": sys.executable,
        "args": ["-m", "tests.support.mcp_server_main"],
        "env": {"PYTHONPATH": str(ROOT)},
        "effects": {"weather": "read_only"},
        "agents": ["energy"],
        "timeout_s": 5,
    }
}


def script(asked: Asked) -> Reply:
    """Call the package's tool and the server's, then answer."""
    if '"role": "tool"' in json.dumps(asked.body):
        return OPENAI.answer("About 3 kWh, and 4 degrees.")
    energy = Call("energy_estimate", '{"tokens": 2000000, "kwh_per_million": 1.5}', "e")
    return OPENAI.answer(calls=[energy, Call("weather__weather", '{"city": "Bern"}', "w")])


@asynccontextmanager
async def service(tmp_path: Path, environ: Mapping[str, str]) -> AsyncIterator["agent_pb2_grpc.AgentServiceAsyncStub"]:
    """Run a service process whose Python finds the packages in `tmp_path`."""
    target = f"127.0.0.1:{free_port()}"
    own = {
        "APEX_ENVIRONMENT": "test",
        "APEX_DATA_DIR": str(tmp_path / "data"),
        "APEX_GRPC_ADDRESS": target,
        "APEX_JWT_SECRET": SECRET,
        "PYTHONPATH": str(tmp_path),
    }
    argv = [sys.executable, "-m", "agent_service"]
    with ChildProcess(argv, output_file=tmp_path / "service.log", env={**own, **environ}, cwd=ROOT) as child:
        child.wait_for_output(" listening on ")
        async with grpc.aio.insecure_channel(target) as channel:
            yield agent_pb2_grpc.AgentServiceStub(channel)


async def test_other_peoples_agents_and_tools_are_listed_and_run(tmp_path: Path) -> None:
    install(EXAMPLE, tmp_path)
    make(tmp_path, "broken_package", "import no_such_library", {"apex.agents": {"x": "broken_package:X"}})
    metadata = (("authorization", f"Bearer {make_token('ann', secret=SECRET)}"),)
    async with ProviderServer(script) as provider:
        account = OPENAI.account(provider.url)
        environ = {
            "APEX_MODEL": OPENAI.model,
            "OPENAI_BASE_URL": account.base_url,
            "OPENAI_API_KEY": account.api_key,
            "APEX_MCP_SERVERS": json.dumps(MCP),
        }
        async with service(tmp_path, environ) as agents:
            listed = await agents.ListAgents(pb.ListAgentsRequest(), metadata=metadata)
            request = pb.RunAgentRequest(content="How much energy was it?", agent="energy")
            events = [event async for event in agents.RunAgent(request, metadata=metadata)]
    assert "energy" in {agent.name for agent in listed.agents}
    tools = {tool.name: tool for tool in listed.tools}
    assert tools["energy_estimate"].timeout_ms == 20_000
    assert "kwh_per_million" in str(tools["energy_estimate"])
    assert "city" in str(tools["weather__weather"])
    outcomes = {e.tool_completed.tool_name: e.tool_completed for e in events if e.HasField("tool_completed")}
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "energy_estimate": pb.TOOL_STATUS_SUCCESS,
        "weather__weather": pb.TOOL_STATUS_SUCCESS,
    }
    assert outcomes["energy_estimate"].result_summary == "3.00 kWh"
    finals = [event.final_response.content for event in events if event.HasField("final_response")]
    assert finals == ["About 3 kWh, and 4 degrees."]
    assert events[-1].HasField("agent_completed")
    log = (tmp_path / "service.log").read_text()
    assert "plug-in 'x' of broken_package (apex.agents)" in log
    assert account.api_key not in log
