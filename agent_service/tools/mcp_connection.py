"""A connection to an MCP server: made when it is needed, given up when it is broken, tried again later."""

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from agent_service.engine.tool import ToolError
from agent_service.mcp_servers import McpServer

if TYPE_CHECKING:
    from mcp import Client, StdioServerParameters
    from mcp.client._transport import Transport

CONNECT_TIMEOUT_S: Final = 15.0
"""A server has this long to start and to introduce itself, in seconds."""

CLOSE_TIMEOUT_S: Final = 7.0
"""A server has this long to end, in seconds. The library kills a process that does not within about 6."""

FIRST_PAUSE_S: Final = 1.0
"""After a connection that failed, in seconds; each further failure doubles it."""

LONGEST_PAUSE_S: Final = 60.0
"""Between two attempts to connect, in seconds."""

MAX_TIMEOUTS: Final = 3
"""Calls in a row that a server may leave without an answer before its connection is given up."""

MAX_ERROR_CHARACTERS: Final = 500
"""Of a server's own words about a call that it rejects."""

ResultT = TypeVar("ResultT")


class McpConnection:
    """The connection to one server, shared by all calls. `clock` gives seconds from an arbitrary start."""

    def __init__(self, name: str, server: McpServer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._server = server
        self._clock = clock
        self._lock = asyncio.Lock()
        self._client: Client | None = None
        self._holder: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()
        self._failures = 0
        self._timeouts = 0
        self._not_before = clock()
        self._logger = structlog.get_logger("apex.mcp")

    async def ask(self, request: Callable[["Client"], Awaitable[ResultT]], timeout_s: float) -> ResultT:
        """Make a request. Raises `ToolError` when the server cannot be reached, does not answer, or rejects it."""
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        client = await self._connected()
        try:
            async with asyncio.timeout(timeout_s):
                answer = await request(client)
        except TimeoutError as error:
            raise await self._timed_out(client, timeout_s) from error
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                raise await self._timed_out(client, timeout_s) from error
            if error.code == CONNECTION_CLOSED:
                raise await self._broken(client, error) from error
            text = error.message[:MAX_ERROR_CHARACTERS]
            raise ToolError(f"The MCP server {self._name!r} rejects this: {text}") from error
        except Exception as error:
            raise await self._broken(client, error) from error
        self._timeouts = 0
        return answer

    async def close(self) -> None:
        """End the connection, and the server's process."""
        async with self._lock:
            await self._drop()

    async def _connected(self) -> "Client":
        async with self._lock:
            if self._client is not None and self._holder is not None and not self._holder.done():
                return self._client
            pause_s = self._not_before - self._clock()
            if pause_s > 0:
                again = f"It is tried again in {math.ceil(pause_s)} s."
                raise ToolError(f"The MCP server {self._name!r} does not answer. {again}")
            return await self._connect()

    async def _connect(self) -> "Client":
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._leave = asyncio.Event()
        self._holder = asyncio.create_task(self._hold(ready, self._leave), name=f"mcp-{self._name}")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._client = await ready
        except Exception as error:
            self._failed(error)
            await self._drop()
            what = "does not start in time" if isinstance(error, TimeoutError) else "cannot be reached"
            raise ToolError(
                f"The MCP server {self._name!r} {what}. Its operator finds the reason in the log."
            ) from error
        except asyncio.CancelledError:
            await self._drop()
            raise
        self._failures = 0
        self._timeouts = 0
        return self._client

    async def _hold(self, ready: "asyncio.Future[Client]", leave: asyncio.Event) -> None:
        """Hold the connection in one task from its beginning to its end, as the library wants it."""
        from mcp import Client

        try:
            async with AsyncExitStack() as stack:
                transport = await self._transport(stack)
                client = await stack.enter_async_context(Client(transport))
                if not ready.done():
                    ready.set_result(client)
                await leave.wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits for the connection is told
            if not ready.done():
                ready.set_exception(error)
            else:
                self._logger.warning("mcp_connection_ended", server=self._name, error=type(error).__name__)

    async def _transport(self, stack: AsyncExitStack) -> "Transport | StdioServerParameters":
        if self._server.command:
            from mcp import StdioServerParameters

            server = self._server
            return StdioServerParameters(command=server.command, args=list(server.args), env=dict(server.env))
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        timeout = httpx2.Timeout(CONNECT_TIMEOUT_S, read=None)  # each request has its own
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=dict(self._server.headers), timeout=timeout))
        return streamable_http_client(self._server.url, http_client=http)

    async def _timed_out(self, client: "Client", timeout_s: float) -> ToolError:
        self._timeouts += 1
        if self._timeouts >= MAX_TIMEOUTS:
            await self._broken(client, TimeoutError())
        text = f"The MCP server {self._name!r} did not answer within {timeout_s:g} s."
        return ToolError(f"{text} Whether it did what was asked is not known.")

    async def _broken(self, client: "Client", error: Exception) -> ToolError:
        """Give up a connection, unless there already is another one."""
        async with self._lock:
            if client is self._client:
                self._failed(error)
                await self._drop()
        text = f"The MCP server {self._name!r} broke off. Whether it did what was asked is not known."
        return ToolError(f"{text} It is started again with the next call.")

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._not_before = self._clock() + min(FIRST_PAUSE_S * 2.0 ** (self._failures - 1), LONGEST_PAUSE_S)
        self._logger.warning("mcp_server_failed", server=self._name, error=_in_words(error), failures=self._failures)

    async def _drop(self) -> None:
        """End the connection in order; what hangs in it is broken off."""
        holder, self._holder, self._client = self._holder, None, None
        self._leave.set()
        if holder is None:
            return
        if self._failures:
            holder.cancel()
        await asyncio.wait({holder}, timeout=CLOSE_TIMEOUT_S)
        if not holder.done():
            holder.cancel()


def _in_words(error: BaseException) -> str:
    """Return an error for the log: of a group, its first; without addresses, which may hold a key."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return re.sub(r"://\S+", "://…", f"{type(error).__name__}: {error}")[:MAX_ERROR_CHARACTERS]
