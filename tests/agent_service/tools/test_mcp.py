"""The tools of MCP servers: real server processes, over their standard streams and over HTTP."""

import asyncio
import json
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest
from pydantic import BaseModel, ValidationError

from agent_service.engine.events import Effect
from agent_service.engine.tool import Tool, ToolError, ToolOutput
from agent_service.mcp_servers import McpServer
from agent_service.tools import mcp_connection
from agent_service.tools.mcp import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_OUTPUT_BYTES,
    MAX_PROBLEMS,
    MAX_SCHEMA_BYTES,
    MAX_TOOLS,
    McpTools,
    arguments_of,
    open_mcp_tools,
    problem_of,
)
from agent_service.tools.mcp_connection import McpConnection
from tests.support.datasets import context
from tests.support.processes import ChildProcess, free_port

ROOT: Final = Path(__file__).parents[3]
MAIN: Final = ("-m", "tests.support.mcp_server_main")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not end by itself is killed sooner than people would want it."""
    monkeypatch.setattr("mcp.client.stdio.PROCESS_TERMINATION_TIMEOUT", 0.1)


def server(*more: str, **fields: object) -> McpServer:
    given = {"command": sys.executable, "args": (*MAIN, *more), "env": {"PYTHONPATH": str(ROOT), "PLACE": "here"}}
    return McpServer.model_validate({**given, **fields})


class Called:
    """The tools of the servers, by their names here."""

    def __init__(self, found: McpTools) -> None:
        self.found = found
        self.tools: dict[str, Tool[BaseModel]] = {tool.name: tool for tool in found.tools}

    async def call(self, name: str, **args: object) -> ToolOutput:
        tool = self.tools[name]
        return await tool.run(context(), tool.args.model_validate(args))

    async def celsius(self, city: str) -> object:
        return (await self.call("w__weather", city=city)).result["celsius"]


@asynccontextmanager
async def opened(**servers: McpServer) -> AsyncIterator[Called]:
    async with open_mcp_tools(servers) as found:
        yield Called(found)


# ---- One server, many questions: a process is started once ----


@pytest.mark.slow
async def test_a_server_over_its_standard_streams() -> None:
    effects = {"weather": Effect.READ_ONLY, "gone": Effect.READ_ONLY}
    one = server(effects=effects, scopes=frozenset({"weather"}), agents=("data", "triage"), timeout_s=5)
    async with opened(w=one) as there:
        found = there.found
        weather = there.tools["w__weather"]
        assert weather.description.startswith("Tells the weather of a city.")
        assert weather.args.model_json_schema()["properties"]["city"] == {"title": "City", "type": "string"}
        assert (weather.effect, weather.scopes) == (Effect.READ_ONLY, frozenset({"weather"}))
        assert weather.needs_approval is None
        dies = there.tools["w__dies"]
        assert dies.effect is Effect.UNSAFE
        assert dies.needs_approval is not None
        assert dies.needs_approval(dies.args.model_validate({})) == (
            "dies of the MCP server 'w' may change something outside."
        )
        assert weather.timeout_ms < 30_000
        assert found.by_agent == {"data": tuple(there.tools), "triage": tuple(there.tools)}
        assert [one.reason for one in found.left_out] == ["it has no tool 'gone', of which an effect is set"]

        assert (await there.call("w__weather", city="Bern")).result == {"city": "Bern", "celsius": 4}
        assert [*await asyncio.gather(there.celsius("Rome"), there.celsius("Paris"))] == [4, 5]

        for wrong in ({}, {"city": 1}, {"city": "Bern", "day": 7}):
            with pytest.raises(ValidationError, match=r"\$"):
                weather.args.model_validate(wrong)

        picture = await there.call("w__picture")
        assert picture.summary == "A cloud."
        assert picture.result["text"] == "A cloud.\nVery white."
        assert "image" in str(picture.result["left_out"])

        assert (await there.call("w__environment", variable="PLACE")).result == {"text": "here"}
        assert (await there.call("w__environment", variable="APEX_JWT_SECRET")).result == {"text": "(not set)"}

        with pytest.raises(ToolError, match="Error executing tool fails"):
            await there.call("w__fails")

        around = len(json.dumps({"text": ""}, separators=(",", ":")))
        await there.call("w__repeated", characters=MAX_OUTPUT_BYTES - around)
        with pytest.raises(ToolError, match="Ask for less"):
            await there.call("w__repeated", characters=MAX_OUTPUT_BYTES - around + 1)


@pytest.mark.slow
async def test_a_server_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_connection, "FIRST_PAUSE_S", 30.0)
    async with opened(w=server(timeout_s=5)) as there:
        with pytest.raises(ToolError, match=r"broke off\. Whether it did what was asked is not known"):
            await there.call("w__dies")
        with pytest.raises(ToolError, match=r"does not answer. It is tried again in (29|30) s"):
            await there.call("w__weather", city="Bern")
    monkeypatch.setattr(mcp_connection, "FIRST_PAUSE_S", 0.0)
    async with opened(w=server(timeout_s=5)) as there:
        with pytest.raises(ToolError, match="broke off"):
            await there.call("w__dies")
        assert await there.celsius("Bern") == 4


@pytest.mark.slow
async def test_a_call_that_hangs_ends_and_the_others_do_not_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_connection, "FIRST_PAUSE_S", 30.0)
    async with opened(w=server(timeout_s=0.2)) as there:
        hanging = asyncio.create_task(there.call("w__hangs"))
        assert await there.celsius("Bern") == 4
        with pytest.raises(ToolError, match=r"did not answer within 0.2 s. Whether"):
            await hanging
        assert await there.celsius("Bern") == 4
        for _ in range(mcp_connection.MAX_TIMEOUTS):
            with pytest.raises(ToolError, match="did not answer"):
                await there.call("w__hangs")
        with pytest.raises(ToolError, match="tried again"):
            await there.call("w__weather", city="Bern")


@pytest.mark.slow
async def test_a_server_over_http(tmp_path: Path) -> None:
    port = free_port()
    argv = [sys.executable, *MAIN, "--http", str(port)]
    with ChildProcess(argv, output_file=tmp_path / "server.log", cwd=ROOT) as child:
        child.wait_until_listening(port)
        one = McpServer(url=f"http://127.0.0.1:{port}/mcp", headers={"Authorization": "Bearer x"}, timeout_s=5)
        async with opened(h=one) as there:
            assert (await there.call("h__weather", city="Bern")).result == {"city": "Bern", "celsius": 4}
            with pytest.raises(ToolError, match="Error executing tool fails"):
                await there.call("h__fails")
            child.kill()
            with pytest.raises(ToolError, match="h"):
                await there.call("h__weather", city="Bern")


@pytest.mark.slow
async def test_a_server_may_have_a_hundred_tools_with_short_descriptions() -> None:
    async with opened(most=server("--many", str(MAX_TOOLS)), more=server("--many", str(MAX_TOOLS + 1))) as there:
        by_server = Counter(name.partition("__")[0] for name in there.tools)
        assert by_server == {"most": MAX_TOOLS, "more": MAX_TOOLS}
        (left_out,) = there.found.left_out
        assert left_out.source == "MCP server 'more'"
        assert {len(tool.description) for tool in there.tools.values()} == {MAX_DESCRIPTION_CHARACTERS}


async def test_the_pauses_between_attempts_double_up_to_a_minute() -> None:
    now = 0.0
    connection = McpConnection("x", McpServer(command="/no/such/program"), clock=lambda: now)
    pauses: list[int] = []
    for _ in range(8):
        with pytest.raises(ToolError, match="cannot be reached"):
            await connection.ask(lambda client: client.list_tools(), 1)
        with pytest.raises(ToolError, match="tried again in") as caught:
            await connection.ask(lambda client: client.list_tools(), 1)
        pauses.append(int(str(caught.value).rpartition(" in ")[2].removesuffix(" s.")))
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_server_that_does_not_start_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_connection, "CONNECT_TIMEOUT_S", 0.5)
    servers = {
        "absent": McpServer(command="/no/such/program"),
        "ends": McpServer(command=sys.executable, args=("-c", "raise SystemExit(1)")),
        "mute": server("--mute"),
        "nobody": McpServer(url=f"http://127.0.0.1:{free_port()}/mcp"),
    }
    async with open_mcp_tools(servers) as found:
        assert found.tools == ()
        assert found.by_agent == {"data": ()}
        told = {one.source: one.reason for one in found.left_out}
    assert list(told) == [f"MCP server {name!r}" for name in servers]
    assert "does not start in time" in told["MCP server 'mute'"]
    assert "cannot be reached" in told["MCP server 'absent'"]
    assert not any("/no/such" in reason for reason in told.values())


async def test_without_the_package_every_server_is_left_out_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    async with open_mcp_tools({"files": McpServer(command="files-server")}) as found:
        assert [one.reason for one in found.left_out] == [
            "the package is not installed: pip install 'apex-agents[mcp]'"
        ]


# ---- Arguments ----


def test_arguments_are_held_against_the_servers_schema() -> None:
    schema: Mapping[str, object] = {
        "type": "object",
        "properties": {"kind": {"$ref": "#/$defs/kind"}, "n": {"type": "integer"}},
        "required": ["kind"],
        "additionalProperties": False,
        "$defs": {"kind": {"enum": ["a", "b"]}},
    }
    model = arguments_of(schema)
    assert model.model_json_schema() == schema
    assert model.model_validate({"kind": "a", "n": 1}).root == {"kind": "a", "n": 1}
    for wrong in ({}, {"kind": "c"}, {"kind": "a", "n": "1"}, {"kind": "a", "more": 1}):
        with pytest.raises(ValidationError):
            model.model_validate(wrong)


def test_not_every_problem_is_told() -> None:
    model = arguments_of({"properties": {f"p{number}": {"type": "integer"} for number in range(MAX_PROBLEMS + 1)}})
    for count in (MAX_PROBLEMS, MAX_PROBLEMS + 1):
        with pytest.raises(ValidationError) as caught:
            model.model_validate({f"p{number}": "x" for number in range(count)})
        assert str(caught.value).count("is not of type") == MAX_PROBLEMS


def test_a_schema_cannot_make_us_fetch_other_documents() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        reference = {"$ref": f"http://127.0.0.1:{other.getsockname()[1]}/schema.json"}
        model = arguments_of({"properties": {"a": reference}})
        with pytest.raises(ValidationError, match="schema cannot be applied"):
            model.model_validate({"a": 1})
        with pytest.raises(BlockingIOError):
            other.accept()


@pytest.mark.parametrize(
    ("name", "size", "fits"),
    [
        ("t" * (64 - len("w__")), 0, True),
        ("t" * (65 - len("w__")), 0, False),
        ("with space", 0, False),
        ("big", MAX_SCHEMA_BYTES, True),
        ("bigger", MAX_SCHEMA_BYTES + 1, False),
        ("odd", -1, False),
    ],
    ids=["longest-name", "too-long-name", "space", "largest-schema", "too-large-schema", "no-schema"],
)
def test_a_tool_that_does_not_fit_is_left_out(name: str, size: int, *, fits: bool) -> None:
    schema: dict[str, object] = {"type": "object", "description": ""}
    schema["description"] = "x" * (size - len(msgspec.json.encode(schema)))
    if size < 0:
        schema["type"] = "nothing"
    assert bool(problem_of(f"w__{name}", schema, {})) is not fits
