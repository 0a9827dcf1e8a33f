"""COMMITs whose outcome the caller does not learn: the answer is lost before, or after, the database has done it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum

from sqlalchemy import make_url

from storage.errors import StorageUnavailableError
from storage.interfaces import EventLog
from storage.records import Append, AppendOutcome

CHUNK_BYTES = 65_536
#: As asyncpg and we send it. The semicolon tells it from "READ COMMITTED".
COMMIT = b"COMMIT;"
#: How asyncpg's message begins that runs a prepared statement: where that is a transaction by itself, it is the COMMIT.
BIND = b"B"


class Fault(Enum):
    """What happens to the next COMMIT."""

    NONE = "none"
    #: It never reaches the database.
    BEFORE = "before"
    #: It is done, and nobody is told.
    AFTER = "after"


class FaultPlan:
    """Holds the fault of the next COMMIT; it happens once. `alone`: each statement is a transaction by itself."""

    def __init__(self, *, alone: bool = False) -> None:
        self.next = Fault.NONE
        self._alone = alone

    def commits(self, data: bytes) -> bool:
        """Tell whether PostgreSQL commits when it has got these bytes."""
        return data.startswith(BIND) if self._alone else COMMIT in data

    def take(self) -> Fault:
        """Return the fault, and let the next COMMIT pass."""
        fault, self.next = self.next, Fault.NONE
        return fault


def faulty_sqlite(plan: FaultPlan) -> type[sqlite3.Connection]:
    """Return a class of connections whose COMMIT follows the plan."""

    class FaultyConnection(sqlite3.Connection):
        def commit(self) -> None:
            fault = plan.take()
            if fault is not Fault.BEFORE:
                super().commit()
            if fault is not Fault.NONE:
                raise sqlite3.OperationalError("disk I/O error")

    return FaultyConnection


class FaultyMemoryLog:
    """The `append` of a log that has no COMMIT of its own, under the same plan."""

    def __init__(self, log: EventLog, plan: FaultPlan) -> None:
        self._log = log
        self._plan = plan

    async def append(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        fault = self._plan.take()
        if fault is Fault.BEFORE:
            raise StorageUnavailableError("lost", outcome_unknown=True)
        outcomes = await self._log.append(appends)
        if fault is Fault.AFTER:
            raise StorageUnavailableError("lost", outcome_unknown=True)
        return outcomes


@asynccontextmanager
async def faulty_postgres(url: str, plan: FaultPlan) -> AsyncIterator[str]:
    """Give the address of a proxy before the server, which cuts the line around a COMMIT as planned."""
    target = make_url(url)
    assert target.host is not None
    proxy = _Proxy(target.host, target.port or 5432, plan)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        # In clear: the proxy must see the word COMMIT.
        proxied = target.set(host="127.0.0.1", port=port).update_query_dict({"ssl": "disable"})
        yield proxied.render_as_string(hide_password=False)
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()


class _Proxy:
    def __init__(self, host: str, port: int, plan: FaultPlan) -> None:
        self._host = host
        self._port = port
        self._plan = plan
        self._serving: dict[asyncio.Event, asyncio.Task[None] | None] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one connection both ways until either side, or the plan, ends it."""
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        cut, closing = asyncio.Event(), asyncio.Event()
        self._serving[closing] = asyncio.current_task()
        pumps = {
            asyncio.create_task(self._pass_to_server(reader, server_writer, cut)),
            asyncio.create_task(self._pass_to_client(server_reader, writer, cut)),
            asyncio.create_task(_wait(closing)),
        }
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for end in (writer, server_writer):
            end.close()
            with suppress(OSError):
                await end.wait_closed()
        del self._serving[closing]

    async def close(self) -> None:
        """End all connections."""
        serving = [task for task in self._serving.values() if task]
        for closing in self._serving:
            closing.set()
        if serving:
            await asyncio.wait(serving)

    async def _pass_to_server(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            fault = self._plan.take() if self._plan.commits(data) else Fault.NONE
            if fault is Fault.BEFORE:
                return
            if fault is Fault.AFTER:
                cut.set()
            writer.write(data)
            await writer.drain()

    async def _pass_to_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if cut.is_set():
                # The server's answer to the COMMIT: it is done.
                return
            writer.write(data)
            await writer.drain()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
