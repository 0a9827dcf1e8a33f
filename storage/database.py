"""Connections and transactions: the one place that opens them, ends them, and turns their failures into ours."""

import asyncio
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Protocol, TypeVar

import asyncpg
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from storage.dialect import SQLITE_LOWER, PostgresDialect, SqliteDialect, StorageDialect
from storage.errors import StorageUnavailableError
from storage.failures import DEFECTS, DoAgainError, unavailable
from storage.postgres_transactor import ConnectionHook, PostgresTransactor
from storage.prepared import Prepared, Statement, Transaction
from storage.sqlite_transactor import SqliteTransactor
from storage.writers_turn import WritersTurn

T = TypeVar("T")

SQLITE_DRIVER = "sqlite+aiosqlite"
POSTGRES_DRIVER = "postgresql+asyncpg"

#: Connections of one process. SQLite has one writer by its nature: in a pool of one, writers queue in order of arrival.
SQLITE_READERS = 4
POSTGRES_READERS = 5
POSTGRES_WRITERS = 5
POSTGRES_TRANSACTORS = 5
#: Those that large writes, the content of files, go through.
POSTGRES_BULK_WRITERS = 2
#: How long a transaction waits for a connection, and a connection for the server.
POOL_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 5
#: How long one statement may take.
STATEMENT_TIMEOUT_S = 30
#: How long SQLite waits for another process's lock, for example that of a backup.
SQLITE_BUSY_TIMEOUT_MS = 5_000
#: Size of each SQLite connection's page cache.
SQLITE_CACHE_KIB = 32_768
#: To what size SQLite cuts its write-ahead log back after a burst.
SQLITE_LOG_BYTES = 64 * 1024**2

#: The server's own view of the limits above: a transaction whose client vanished frees its locks by itself.
POSTGRES_SETTINGS = {
    "application_name": "apex",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
    "lock_timeout": "15s",
    "idle_in_transaction_session_timeout": "15s",
    # A plan that was made while the tables were empty must not be kept for ever.
    "plan_cache_mode": "force_custom_plan",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
#: Those of the short transactions: half of their time went into plans that are always the same. They find every row by
#: its key, so a plan that was made while the tables were empty does no harm, if only it uses the keys then, too. (A
#: plan that is forbidden to scan and must counts as costly, and is not worth compiling for all that.)
POSTGRES_TRANSACTOR_SETTINGS = POSTGRES_SETTINGS | {
    # Each statement must see what was committed while the one before it waited for a lock.
    "default_transaction_isolation": "read committed",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
}


class Transactor(Protocol):
    """Runs the short transactions that every run passes through."""

    async def run(self, make: Callable[[], Transaction[T]], *, may_wait: bool = False) -> T:
        """Run what `make` gives and return its result. A cancelled caller abandons the result, not the transaction.

        `may_wait`: for locks that others hold long; such transactions leave connections to the others. Raises what the
        transaction raises, and `StorageUnavailableError`.
        """
        ...

    async def close(self) -> None:
        """Finish what was asked for, and close the connections."""
        ...


class Database:
    """One database, with separate connections for reading and for writing, so that neither waits for the other.

    Every transaction runs to its end, whatever becomes of the caller: a cancelled caller leaves neither a broken
    connection nor an open transaction. Whether a cancelled write was committed, its caller does not learn.

    `read` and `write` take any statement of SQLAlchemy. `transact` is for what every run passes through: plain
    generators over statements that were compiled once, on the driver itself.
    """

    def __init__(
        self,
        dialect: StorageDialect,
        reader: AsyncEngine,
        writer: AsyncEngine,
        transactor: Transactor,
        *,
        readers: int,
        turn: WritersTurn | None = None,
        bulk_writer: AsyncEngine | None = None,
    ) -> None:
        """Join the parts.

        `readers`: how many connections `reader` has. `turn`: held by each `write`, where the database has one writer.
        `bulk_writer`: for writes that take long.
        """
        self.dialect = dialect
        self._reader = reader
        self._writer = writer
        self._bulk_writer = bulk_writer or writer
        self._transactor = transactor
        self._turn = turn
        self._reading = asyncio.Semaphore(readers)
        self._working: set[asyncio.Task[object]] = set()
        self._closed = False

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work`, whose statements each see what is committed when they begin. It may not read anew itself.

        Raises:
            StorageUnavailableError: the database cannot be reached, or is busy for too long.
        """
        # Here, and not in what is finished: a caller who leaves while it waits leaves no read behind, so that those who
        # come and go quickly cannot pile up reads for nobody.
        await self._turn_to_read()
        return await self.finish(self._read_in_turn(work))

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]], *, is_bulk: bool = False) -> T:
        """Run `work` in one transaction, and commit it unless it raises. `work` may be called a second time.

        `is_bulk`: it takes long, so that it must not keep a connection from others.

        Raises:
            StorageUnavailableError: nothing was committed, or `outcome_unknown`.
        """
        return await self.finish(
            self._repeatable(lambda: self._write(work, self._bulk_writer if is_bulk else self._writer))
        )

    async def transact(self, make: Callable[[], Transaction[T]], *, may_wait: bool = False) -> T:
        """Run a transaction of prepared statements; commit it unless it raises. `make` may be called a second time.

        `may_wait`: for locks that others hold long.

        Raises:
            StorageUnavailableError: nothing was committed, or `outcome_unknown`.
        """
        self._refuse_if_closed()
        return await self._transactor.run(make, may_wait=may_wait)

    def prepare(self, statement: Statement) -> Prepared:
        """Compile a statement for `transact`."""
        return Prepared(statement, self._writer.dialect)

    async def finish(self, work: Coroutine[object, object, T]) -> T:
        """Await `work`, which goes on to its end when the caller is cancelled; `close` waits for it.

        Raises:
            StorageUnavailableError: the database is closed. What began before may go on to begin more.
        """
        try:
            self._refuse_if_closed()
        except StorageUnavailableError:
            work.close()
            raise
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    async def ping(self) -> None:
        """Return when the database answers. Raises `StorageUnavailableError`."""
        await self.read(lambda connection: connection.execute(text("SELECT 1")))

    async def close(self) -> None:
        """Wait for the transactions under way and close all connections. Later calls are refused, but for this one."""
        was_closed, self._closed = self._closed, True
        while self._working:
            await asyncio.wait(self._working)
        if not was_closed:
            await self._transactor.close()
        await self._reader.dispose()
        await self._writer.dispose()
        await self._bulk_writer.dispose()

    def _refuse_if_closed(self) -> None:
        if self._closed and asyncio.current_task() not in self._working:
            raise StorageUnavailableError("the storage is closed")

    async def _turn_to_read(self) -> None:
        try:
            async with asyncio.timeout(POOL_TIMEOUT_S):
                await self._reading.acquire()
        except TimeoutError as error:
            raise StorageUnavailableError("the database is busy with other reads") from error
        try:
            self._refuse_if_closed()
        except StorageUnavailableError:
            self._reading.release()
            raise

    async def _read_in_turn(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            return await self._repeatable(lambda: self._read(work))
        finally:
            self._reading.release()

    async def _repeatable(self, attempt: Callable[[], Awaitable[T]]) -> T:
        try:
            return await attempt()
        except DoAgainError:
            # A pooled connection that died since its last use, or a deadlock: nothing was done yet.
            return await attempt()

    async def _read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            async with self._reader.connect() as connection:
                return await work(connection)
        except DEFECTS:
            raise
        except (SQLAlchemyError, OSError) as error:
            raise unavailable(error) from error

    async def _write(self, work: Callable[[AsyncConnection], Awaitable[T]], writer: AsyncEngine) -> T:
        if self._turn is None:
            return await self._write_now(work, writer)
        async with self._turn():
            return await self._write_now(work, writer)

    async def _write_now(self, work: Callable[[AsyncConnection], Awaitable[T]], writer: AsyncEngine) -> T:
        commit_sent = False
        try:
            async with writer.connect() as connection:
                result = await work(connection)
                commit_sent = True
                await _commit(connection)
            return result
        except DEFECTS:
            raise
        except (SQLAlchemyError, OSError) as error:
            raise unavailable(error, commit_sent=commit_sent) from error

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._working.discard(task)
        if not task.cancelled():
            # A caller that was cancelled will not ask; without this asyncio would report an error that nobody missed.
            task.exception()


async def _commit(connection: AsyncConnection) -> None:
    try:
        await connection.commit()
    except BaseException:
        # The transaction may still be open, and SQLAlchemy takes it for closed: this connection is of no more use.
        await connection.invalidate()
        raise


def sqlite_url(path: Path) -> str:
    """Return the address of a SQLite database file."""
    return URL.create(SQLITE_DRIVER, database=str(path.absolute())).render_as_string()


def open_database(
    database_url: str, *, sqlite_connection_class: type[sqlite3.Connection] = sqlite3.Connection
) -> Database:
    """Return the database at a SQLAlchemy address; connections are made when they are first needed.

    Raises:
        ValueError: neither `sqlite+aiosqlite` with a file nor `postgresql+asyncpg`.
    """
    url = make_url(database_url)
    if url.drivername == POSTGRES_DRIVER:
        return _open_postgres(url)
    if url.drivername == SQLITE_DRIVER and url.database and url.database != ":memory:":
        return _open_sqlite(url, sqlite_connection_class)
    raise ValueError(
        f"the database address must begin with {POSTGRES_DRIVER}:// or {SQLITE_DRIVER}:/// and name a file, "
        f"not {url.render_as_string()}"
    )


def is_embedded(database_url: str) -> bool:
    """Tell whether the address is that of a file on this machine."""
    return make_url(database_url).drivername == SQLITE_DRIVER


def _open_postgres(url: URL) -> Database:
    arguments = {
        "timeout": CONNECT_TIMEOUT_S,
        # A little longer than the server's own limit, which knows better what it stopped.
        "command_timeout": STATEMENT_TIMEOUT_S + 5,
        "server_settings": POSTGRES_SETTINGS,
    }

    def engine(size: int, *, autocommit: bool) -> AsyncEngine:
        return create_async_engine(
            url,
            pool_size=size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            hide_parameters=True,  # they hold people's words, and errors go to the log
            connect_args=arguments,
            isolation_level="AUTOCOMMIT" if autocommit else "READ COMMITTED",
            skip_autocommit_rollback=autocommit,
        )

    reader, writer = engine(POSTGRES_READERS, autocommit=True), engine(POSTGRES_WRITERS, autocommit=False)
    _, address = writer.dialect.create_connect_args(url)

    async def make_pool(*, init: ConnectionHook, reset: ConnectionHook) -> asyncpg.Pool:
        return await asyncpg.create_pool(
            **address,
            **arguments | {"server_settings": POSTGRES_TRANSACTOR_SETTINGS},
            min_size=1,
            max_size=POSTGRES_TRANSACTORS,
            max_queries=sys.maxsize,  # asyncpg would change a connection for a new one now and then
            init=init,
            reset=reset,
        )

    return Database(
        PostgresDialect(),
        reader,
        writer,
        PostgresTransactor(make_pool, POOL_TIMEOUT_S),
        readers=POSTGRES_READERS,
        bulk_writer=engine(POSTGRES_BULK_WRITERS, autocommit=False),
    )


def _open_sqlite(url: URL, connection_class: type[sqlite3.Connection]) -> Database:
    def engine(size: int, *, read_only: bool) -> AsyncEngine:
        made = create_async_engine(
            url,
            pool_size=size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            hide_parameters=True,  # they hold people's words, and errors go to the log
            # None: the driver begins no transactions of its own.
            connect_args={"factory": connection_class, "isolation_level": None},
            skip_autocommit_rollback=read_only,
        )

        def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
            _prepare_sqlite(connection, read_only=read_only)

        event.listen(made.sync_engine, "connect", prepare)
        if not read_only:
            event.listen(made.sync_engine, "begin", _begin_immediate)
        return made

    def connect() -> sqlite3.Connection:
        path = str(url.database)
        connection = sqlite3.connect(path, factory=connection_class, isolation_level=None, check_same_thread=False)
        _prepare_sqlite(connection, read_only=False)
        return connection

    turn = WritersTurn(POOL_TIMEOUT_S)
    return Database(
        SqliteDialect(),
        engine(SQLITE_READERS, read_only=True),
        engine(1, read_only=False),
        SqliteTransactor(connect, turn),
        readers=SQLITE_READERS,
        turn=turn,
    )


def _prepare_sqlite(connection: DBAPIConnection | sqlite3.Connection, *, read_only: bool) -> None:
    cursor = connection.cursor()
    for setting in (
        f"busy_timeout = {SQLITE_BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        # FULL: what a COMMIT returned for survives a power cut.
        "synchronous = FULL",
        "foreign_keys = ON",
        f"cache_size = -{SQLITE_CACHE_KIB}",
        f"journal_size_limit = {SQLITE_LOG_BYTES}",
        f"query_only = {'ON' if read_only else 'OFF'}",
    ):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()
    connection.create_function(SQLITE_LOWER, 1, str.lower, deterministic=True)


def _begin_immediate(connection: Connection) -> None:
    # A deferred transaction that reads first could not become a writing one once another has written.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
