"""Short transactions on PostgreSQL: on asyncpg itself, with connections of their own."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import asyncpg

from storage.errors import StorageUnavailableError
from storage.failures import DO_AGAIN_CODES, DoAgainError, describe
from storage.prepared import Transaction

T = TypeVar("T")

Connection: TypeAlias = Any  # asyncpg ships no types
ConnectionHook: TypeAlias = Callable[[Connection], Awaitable[None]]

_DEFECTS: Final[tuple[type[Exception], ...]] = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SyntaxOrAccessError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.exceptions.DataError,  # the server refuses a value
    asyncpg.DataError,
)
"""Ours to mend: these pass as they are."""

MAX_WAITING: Final = 3
"""Transactions at once that may wait for locks: they leave connections to those that do not."""

_LINE_LOST: Final = ("08", "57P")
"""How the codes begin after which nobody knows what became of a COMMIT."""

_TROUBLES: Final[tuple[type[Exception], ...]] = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class MakePool(Protocol):
    """Opens a pool. `init` is called with each new connection, `reset` with each that is given back."""

    def __call__(self, *, init: ConnectionHook, reset: ConnectionHook) -> Awaitable[asyncpg.Pool]:
        """Return the pool."""
        ...


class PostgresTransactor:
    """Runs transactions, several at once, each on a connection of its pool."""

    def __init__(self, make_pool: MakePool, acquire_timeout_s: float) -> None:
        self._make_pool = make_pool
        self._acquire_timeout_s = acquire_timeout_s
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._waiting = asyncio.Semaphore(MAX_WAITING)
        self._working: set[asyncio.Task[Any]] = set()

    async def run(self, make: Callable[[], Transaction[T]], *, may_wait: bool = False) -> T:
        """Run a transaction and return its result. A cancelled caller abandons the result, not the transaction.

        Raises what the transaction raises, and `StorageUnavailableError`.
        """
        task = asyncio.create_task(self._run_repeatably(make, self._waiting if may_wait else nullcontext()))
        self._working.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Close the connections, after everything that was asked for is done. Nothing may be asked for later."""
        while self._working:
            await asyncio.wait(self._working)
        if self._pool is not None:
            await self._pool.close()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._working.discard(task)
        if not task.cancelled():
            task.exception()  # a cancelled caller will not ask

    async def _run_repeatably(self, make: Callable[[], Transaction[T]], turn: AbstractAsyncContextManager[None]) -> T:
        async with turn:
            try:
                return await self._run(make)
            except DoAgainError:
                # A pooled connection that died since its last use, or a deadlock: nothing was done yet.
                return await self._run(make)

    async def _run(self, make: Callable[[], Transaction[T]]) -> T:
        try:
            pool = self._pool or await self._open()
            connection = await pool.acquire(timeout=self._acquire_timeout_s)
        except _TROUBLES as error:
            raise StorageUnavailableError(describe(error)) from error
        try:
            return await self._play(connection, make())
        finally:
            with suppress(*_TROUBLES):  # what became of the transaction is known; the pool makes a new connection
                await pool.release(connection)

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await self._make_pool(init=_prepare, reset=_leave_as_it_is)
            return self._pool

    async def _play(self, connection: Connection, transaction: Transaction[T]) -> T:
        commit_sent = False
        try:
            query = next(transaction)
            commit_sent = query.is_alone
            if not query.is_alone:
                await connection.execute("BEGIN;")
            while True:
                query = transaction.send(query.rows(await connection.fetch(query.sql, *query.args)))
        except StopIteration as end:
            value: T = end.value
            if not commit_sent:
                await _commit(connection)
            return value
        except _TROUBLES as error:
            raise await _failure(connection, error, commit_sent=commit_sent) from error
        except BaseException:
            await _roll_back(connection)
            raise


async def _commit(connection: Connection) -> None:
    try:
        await connection.execute("COMMIT;")
    except _TROUBLES as error:
        _break(connection)  # the transaction may still be open: this connection is of no more use
        raise StorageUnavailableError(describe(error), outcome_unknown=True) from error
    except BaseException:
        _break(connection)
        raise


async def _roll_back(connection: Connection) -> None:
    """End the transaction, or else the connection, which ends it too."""
    try:
        await connection.execute("ROLLBACK;")
    except _TROUBLES:
        _break(connection)
    except BaseException:
        _break(connection)
        raise


async def _failure(connection: Connection, error: Exception, *, commit_sent: bool) -> Exception:
    """Return what the caller is told, with nothing left open."""
    code = getattr(error, "sqlstate", None) or ""
    if (
        commit_sent
        and not isinstance(error, _DEFECTS)
        and (not code or code.startswith(_LINE_LOST) or _is_broken(connection))
    ):
        _break(connection)
        return StorageUnavailableError(describe(error), outcome_unknown=True)
    if not commit_sent:
        await _roll_back(connection)
    if isinstance(error, _DEFECTS):
        return error
    if _is_broken(connection) or code in DO_AGAIN_CODES:
        return DoAgainError(describe(error))
    return StorageUnavailableError(describe(error))


def _is_broken(connection: Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # the pool has taken it away already
        return True


def _break(connection: Connection) -> None:
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _prepare(connection: Connection) -> None:
    # As SQLAlchemy's own connections do: its types write JSON as text, and expect it read.
    await connection.set_type_codec("json", encoder=str, decoder=json.loads, schema="pg_catalog")


async def _leave_as_it_is(_connection: Connection) -> None:
    """Do nothing: no transaction here changes a session, and asyncpg's own clean-up costs a round trip."""
