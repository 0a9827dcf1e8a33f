"""Which MCP servers there are: one JSON object, name → server, in a file or in the setting itself."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agent_service.engine.events import Effect

MAX_SERVERS: Final = 32
"""Of one deployment."""

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
"""Of a server: with `__` between, it begins the names of its tools."""


class McpServer(BaseModel):
    """A server: a command that speaks over its standard streams, or a URL of streamable HTTP.

    `effects` are by tool, as the server names it. A tool that is not named there counts as UNSAFE: a
    person decides about each call. `agents` may use the tools, `scopes` are what a token must permit for that.
    `timeout_s` bounds one call, in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict, repr=False)
    url: str = ""
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    effects: Mapping[str, Effect] = Field(default_factory=dict)
    agents: tuple[str, ...] = ("data",)
    scopes: frozenset[str] = frozenset()
    timeout_s: float = Field(default=10, gt=0, le=600)

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.command) is bool(self.url):
            raise ValueError("needs either command or url")
        return self


def read_mcp_servers(value: str) -> Mapping[str, McpServer]:
    """Return the servers of a JSON object, or of the file at this path. Raises `ValueError`, without what is secret."""
    text = value.strip()
    if not text.startswith("{"):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ValueError("must be a JSON object, or the path of a file with one that can be read") from None
    try:
        given = msgspec.json.decode(text, type=dict[str, dict[str, object]])
    except msgspec.MsgspecError:
        raise ValueError('must be JSON such as {"files": {"command": "files-server"}}') from None
    if len(given) > MAX_SERVERS:
        raise ValueError(f"must be at most {MAX_SERVERS} servers")
    return {name: _server(name, entry) for name, entry in given.items()}


def _server(name: str, entry: dict[str, object]) -> McpServer:
    if not NAME.fullmatch(name):
        raise ValueError(f"the name {name!r} must be 1 to 32 of a-z, 0-9 and -, and neither begin nor end with -")
    try:
        return McpServer.model_validate(entry)
    except ValidationError as error:
        problems = (f"{'.'.join([name, *map(str, item['loc'])])}: {item['msg']}" for item in error.errors())
        raise ValueError("; ".join(problems).replace("Value error, ", "")) from None
