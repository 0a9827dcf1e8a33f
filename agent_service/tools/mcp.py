"""The tools of MCP servers as tools of ours: `server__tool`, with the server's own argument schema."""

import asyncio
import importlib
import importlib.util
import itertools
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, Self

import msgspec
from pydantic import BaseModel, JsonValue, RootModel, model_validator

from agent_service.engine.events import Effect
from agent_service.engine.registry import LeftOut
from agent_service.engine.tool import Tool, ToolContext, ToolError, ToolOutput, define_tool
from agent_service.mcp_servers import McpServer
from agent_service.tools.mcp_connection import CONNECT_TIMEOUT_S, McpConnection

if TYPE_CHECKING:
    import mcp_types
    from mcp import Client

SEPARATOR: Final = "__"

NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Of a tool with its server's name in front, as every provider takes it."""

LIST_TIMEOUT_S: Final = 10.0
"""For the list of a server's tools, in seconds."""

MAX_TOOLS: Final = 100
"""Of one server; further ones are left out."""

MAX_SCHEMA_BYTES: Final = 32 * 1024
"""Of a tool's argument schema as JSON; a tool with a larger one is left out."""

MAX_DESCRIPTION_CHARACTERS: Final = 1_000
"""Of a tool's description; the rest is cut."""

MAX_OUTPUT_BYTES: Final = 1024 * 1024
"""Of a tool's result as JSON; a larger one is refused."""

MAX_SUMMARY_CHARACTERS: Final = 200
"""Of a result in one line."""

MAX_PROBLEMS: Final = 5
"""Told about one call's arguments."""


@dataclass(frozen=True, slots=True)
class McpTools:
    """What the servers give: `by_agent` are tools' names by the agent that may use them."""

    tools: tuple[Tool[BaseModel], ...]
    by_agent: Mapping[str, tuple[str, ...]]
    left_out: tuple[LeftOut, ...]


@asynccontextmanager
async def open_mcp_tools(servers: Mapping[str, McpServer]) -> AsyncIterator[McpTools]:
    """Start every server at once and yield their tools; end the servers afterwards.

    A server that does not start is left out. One that ends later is started again when its tools are called.
    """
    if not servers or importlib.util.find_spec("mcp") is None:
        reason = "the package is not installed: pip install 'apex-agents[mcp]'"
        yield McpTools((), {}, tuple(LeftOut(f"MCP server {name!r}", reason) for name in servers))
        return
    connections = {name: McpConnection(name, server) for name, server in servers.items()}
    try:
        listed = await asyncio.gather(*(_tools(name, servers[name], connections[name]) for name in servers))
        by_agent: dict[str, tuple[str, ...]] = {}
        for server, (tools, _) in zip(servers.values(), listed, strict=True):
            for agent in server.agents:
                by_agent[agent] = (*by_agent.get(agent, ()), *(tool.name for tool in tools))
        yield McpTools(
            tuple(tool for tools, _ in listed for tool in tools),
            by_agent,
            tuple(left_out for _, some in listed for left_out in some),
        )
    finally:
        await asyncio.gather(*(connection.close() for connection in connections.values()))


async def _tools(
    name: str, server: McpServer, connection: McpConnection
) -> tuple[list[Tool[BaseModel]], list[LeftOut]]:
    """Return a server's tools, and what of it is left out."""
    source = f"MCP server {name!r}"
    try:
        listed = await connection.ask(_list, LIST_TIMEOUT_S)
    except ToolError as error:
        return [], [LeftOut(source, str(error))]
    found: dict[str, Tool[BaseModel]] = {}
    unknown = server.effects.keys() - {tool.name for tool in listed}
    left_out = [LeftOut(source, f"it has no tool {tool!r}, of which an effect is set") for tool in sorted(unknown)]
    if len(listed) > MAX_TOOLS:
        left_out.append(LeftOut(source, f"it has more than {MAX_TOOLS} tools: the rest is left out"))
    for listed_tool in listed[:MAX_TOOLS]:
        problem = problem_of(f"{name}{SEPARATOR}{listed_tool.name}", listed_tool.input_schema, found)
        if problem:
            left_out.append(LeftOut(f"tool {listed_tool.name!r} of {source}", problem))
        else:
            tool = _tool(name, server, connection, listed_tool)
            found[tool.name] = tool
    return list(found.values()), left_out


async def _list(client: "Client") -> "list[mcp_types.Tool]":
    """Return the tools of a server, one more than it may have at most."""
    tools: list[mcp_types.Tool] = []
    cursor: str | None = None
    while len(tools) <= MAX_TOOLS:
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if not cursor or not page.tools:
            break
    return tools


def problem_of(name: str, schema: Mapping[str, object], found: Mapping[str, object]) -> str:
    """Return why a tool cannot be one of ours, or nothing."""
    if not NAME.fullmatch(name):
        return f"its name here, {name!r}, must be 1 to 64 of a-z, A-Z, 0-9, _ and -"
    if name in found:
        return "there are two of this name"
    if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
        return f"the schema of its arguments is larger than {MAX_SCHEMA_BYTES} bytes"
    try:
        _validator(schema)
    except Exception:  # noqa: BLE001 - the library's errors have no common type
        return "the schema of its arguments is no JSON schema"
    return ""


def _tool(server_name: str, server: McpServer, connection: McpConnection, listed: "mcp_types.Tool") -> Tool[BaseModel]:
    effect = server.effects.get(listed.name, Effect.UNSAFE)

    async def run(_: ToolContext, args: McpArguments) -> ToolOutput:
        result = await connection.ask(lambda client: client.call_tool(listed.name, dict(args.root)), server.timeout_s)
        return _output(listed.name, result)

    reason = f"{listed.name} of the MCP server {server_name!r} may change something outside."
    description = (listed.description or listed.title or listed.name).strip()
    tool = define_tool(
        f"{server_name}{SEPARATOR}{listed.name}",
        description[:MAX_DESCRIPTION_CHARACTERS],
        arguments_of(listed.input_schema),
        run,
        effect=effect,
        timeout_ms=round((server.timeout_s + CONNECT_TIMEOUT_S + 1) * 1000),
        scopes=server.scopes,
        needs_approval=(lambda _: reason) if effect is Effect.UNSAFE else None,
    )
    return replace(tool, is_live=True)


class McpArguments(RootModel[dict[str, JsonValue]]):
    """Arguments that a server's JSON schema describes."""

    schema_of_server: ClassVar[Mapping[str, object]] = {}

    @classmethod
    def model_json_schema(cls, *_: object, **__: object) -> dict[str, object]:
        return dict(cls.schema_of_server)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = _problems(self.schema_of_server, self.root)
        if problems:
            raise ValueError("; ".join(problems))
        return self


def arguments_of(schema: Mapping[str, object]) -> type[McpArguments]:
    """Return a model for arguments that fit the JSON schema."""

    class Arguments(McpArguments):
        schema_of_server = schema

    return Arguments


class _Problem(Protocol):
    message: str
    json_path: str


class _Validator(Protocol):
    def iter_errors(self, instance: object) -> Iterator[_Problem]: ...


def _validator(schema: Mapping[str, object]) -> _Validator:
    """Return what checks values against the schema. Raises an error of its library for one that is none.

    References to other documents are not followed: the library would fetch them.
    """
    # The packages come with that of MCP, and ship no types.
    validators = importlib.import_module("jsonschema.validators")
    registry = importlib.import_module("referencing").Registry()
    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    kind.check_schema(schema)
    validator: _Validator = kind(schema, registry=registry)
    return validator


def _problems(schema: Mapping[str, object], args: Mapping[str, object]) -> list[str]:
    """Return what does not fit, at most `MAX_PROBLEMS`."""
    try:
        found = itertools.islice(_validator(schema).iter_errors(args), MAX_PROBLEMS)
        return [f"{problem.json_path}: {problem.message}"[:MAX_SUMMARY_CHARACTERS] for problem in found]
    except Exception:  # noqa: BLE001 - the library's errors have no common type; what the server wrote is at fault
        return ["the tool's schema cannot be applied: its server has to put it right"]


def _output(name: str, result: "mcp_types.CallToolResult") -> ToolOutput:
    """Return what a call found. Raises `ToolError` for one that failed, or found too much."""
    texts = [block.text for block in result.content if block.type == "text"]
    text = "\n".join(texts)
    if result.is_error:
        raise ToolError(text[:MAX_DESCRIPTION_CHARACTERS] or f"{name} failed without a word.")
    found = result.structured_content
    data: dict[str, JsonValue] = dict(found) if isinstance(found, Mapping) else {"text": text}
    other = sorted({block.type for block in result.content if block.type != "text"})
    if other:
        data["left_out"] = [f"{kind}: only text and data are passed on" for kind in other]
    if len(msgspec.json.encode(data)) > MAX_OUTPUT_BYTES:
        raise ToolError(f"The result of {name} is larger than {MAX_OUTPUT_BYTES} bytes. Ask for less.")
    first_line = text.strip().partition("\n")[0]
    return ToolOutput(first_line[:MAX_SUMMARY_CHARACTERS] or f"{name} answered.", data)
