"""An MCP server of the tests as a process of its own: over its standard streams, or `--http PORT`."""

import argparse
import asyncio
import os
import time

from mcp.server.mcpserver import MCPServer
from mcp_types import ImageContent, TextContent
from pydantic import BaseModel, Field

LONG = 1_100
"""Characters of a description that is longer than it may be."""

server = MCPServer("tests")


class Weather(BaseModel):
    city: str
    celsius: int


@server.tool()
def weather(city: str, day: int = Field(0, ge=0, le=6)) -> Weather:
    """Tells the weather of a city. Of today, or of a day within the week."""
    return Weather(city=city, celsius=len(city) + day)


@server.tool(structured_output=False)
def picture() -> list[TextContent | ImageContent]:
    """Says something and shows something."""
    return [
        TextContent(type="text", text="A cloud.\nVery white."),
        ImageContent(type="image", data="AAAA", mime_type="image/png"),
    ]


@server.tool(structured_output=False)
def repeated(characters: int) -> str:
    """Says a lot."""
    return "x" * characters


@server.tool(structured_output=False)
def environment(variable: str) -> str:
    """Tells a variable of the process."""
    return os.environ.get(variable, "(not set)")


@server.tool()
def fails() -> str:
    """Fails."""
    raise ValueError("no such place")


@server.tool()
async def hangs() -> str:
    """Never answers."""
    await asyncio.Event().wait()
    return ""


@server.tool()
def dies() -> str:
    """Ends the process."""
    os._exit(3)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int)
    parser.add_argument("--mute", action="store_true", help="never say anything")
    parser.add_argument("--many", type=int, help="so many tools, in place of the others")
    arguments = parser.parse_args()
    if arguments.many:
        many = MCPServer("many")
        for number in range(arguments.many):
            many.add_tool(picture, name=f"t{number}", description="x" * LONG)
        many.run()
    elif arguments.mute:
        time.sleep(3600)
    elif arguments.http:
        server.run("streamable-http", port=arguments.http)
    else:
        server.run()


if __name__ == "__main__":
    main()
