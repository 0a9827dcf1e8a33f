"""Short transactions on SQLite: a connection and a thread of their own, and one COMMIT for all that wait."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from storage.errors import StorageUnavailableError
from storage.failures import SQLITE_DEFECTS, unavailable
from storage.prepared import Transaction

T = TypeVar("T")

MAX_BATCH: Final = 64
"""Transactions under one COMMIT; what is left goes under the next."""

Connect: TypeAlias = Callable[[], sqlite3.Connection]
Make: TypeAlias = Callable[[], Transaction[Any]]  # each of a batch has a result of its own type


@dataclass(frozen=True, slots=True)
class _Done:
    value: object


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


class SqliteTransactor:
    """Runs transactions in order of arrival. A COMMIT costs a flush to the disk: those that wait share one.

    Each is in a savepoint of its own, so that one that fails takes no other with it; nobody learns of an outcome before
    the COMMIT. `turn` keeps writers of other connections out.
    """

    def __init__(self, connect: Connect, turn: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self._connect = connect
        self._turn = turn
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._connection: sqlite3.Connection | None = None
        self._waiting: list[tuple[Make, asyncio.Future[Any]]] = []
        self._pump: asyncio.Task[None] | None = None

    async def run(self, make: Callable[[], Transaction[T]]) -> T:
        """Run a transaction and return its result. Raises what it raises, and `StorageUnavailableError`."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((make, future))
        if self._pump is None:
            self._pump = asyncio.create_task(self._work(), name="sqlite-writer")
        return await future

    async def close(self) -> None:
        """Close the connection, after everything that was asked for is done. Nothing may be asked for later."""
        if self._pump is not None:
            await self._pump
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()  # it is idle: nothing to wait for

    async def _work(self) -> None:
        while self._waiting:
            try:
                async with self._turn():
                    batch = self._take()
                    made = [make for make, _ in batch]
                    outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, made)
            except StorageUnavailableError as error:  # our turn did not come
                batch = self._take()
                outcomes = [_Failed(error) for _ in batch]
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                _tell(future, outcome)
        self._pump = None

    def _take(self) -> Sequence[tuple[Make, asyncio.Future[Any]]]:
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        return batch

    # --- in the thread

    def _commit(self, batch: Sequence[Make]) -> Sequence[_Done | _Failed]:
        commit_sent = False
        try:
            connection = self._connection = self._connection or self._connect()
            try:
                connection.execute("BEGIN IMMEDIATE")
                outcomes = [_run(connection, make, is_alone=len(batch) == 1) for make in batch]
                if any(isinstance(outcome, _Done) for outcome in outcomes):
                    commit_sent = True
                    connection.commit()
                return outcomes
            finally:
                if connection.in_transaction:
                    connection.rollback()
        except sqlite3.Error as error:
            self._disconnect()
            return [_Failed(unavailable(error, commit_sent=commit_sent)) for _ in batch]

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _tell(future: asyncio.Future[Any], outcome: _Done | _Failed) -> None:
    if future.done():
        return  # whoever asked was cancelled
    if isinstance(outcome, _Failed):
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome.value)


def _run(connection: sqlite3.Connection, make: Make, *, is_alone: bool) -> _Done | _Failed:
    """Run one transaction of a batch; one that fails leaves nothing behind. Raises what the database's troubles are."""
    if not is_alone:
        connection.execute("SAVEPOINT one")
    try:
        outcome: _Done | _Failed = _Done(_play(connection, make()))
    except sqlite3.Error as error:
        if not isinstance(error, SQLITE_DEFECTS):
            raise
        outcome = _Failed(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is for who asked for this transaction
        outcome = _Failed(error)
    if not is_alone:
        if isinstance(outcome, _Failed):
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")
    return outcome


def _play(connection: sqlite3.Connection, transaction: Transaction[T]) -> T:
    try:
        query = next(transaction)
        while True:
            query = transaction.send(query.rows(connection.execute(query.sql, query.args).fetchall()))
    except StopIteration as end:
        value: T = end.value
        return value
