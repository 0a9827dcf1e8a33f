"""Short transactions on SQLite: a connection and a thread of their own, and one COMMIT for all that wait."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

from storage.errors import StorageUnavailableError
from storage.failures import SQLITE_DEFECTS, describe, unavailable
from storage.prepared import Transaction
from storage.writers_turn import WritersTurn

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


_Asked: TypeAlias = tuple[Make, asyncio.Future[Any]]
_Outcomes: TypeAlias = Sequence[_Done | _Failed]


class SqliteTransactor:
    """Runs transactions in order of arrival. A COMMIT costs a flush to the disk: those that wait share one.

    Each is in a savepoint of its own, so that one that fails takes no other with it; nobody learns of an outcome before
    the COMMIT. `turn` keeps writers of other connections out. To be used from one event loop.
    """

    def __init__(self, connect: Connect, turn: WritersTurn) -> None:
        self._turn = turn
        self._writer = _Writer(connect)
        self._waiting: list[_Asked] = []
        self._batch: list[_Asked] = []
        self._is_at_work = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, make: Callable[[], Transaction[T]], *, may_wait: bool = False) -> T:
        """Run a transaction and return its result. A cancelled caller abandons the result, not the transaction.

        Raises what the transaction raises, and `StorageUnavailableError`.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((make, future))
        if not self._is_at_work:
            self._ask()
        return await future

    async def close(self) -> None:
        """Close the connection, after everything that was asked for is done. Nothing may be asked for later."""
        await self._idle.wait()
        self._writer.close()

    def _ask(self) -> None:
        self._is_at_work = True
        self._idle.clear()
        self._turn.ask(self._begin, self._give_up)

    def _begin(self) -> None:
        self._batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        try:
            self._writer.commit([make for make, _ in self._batch], self._finish)
        except Exception as error:  # noqa: BLE001 - no thread could be started: nobody must wait for one
            self._finish([_Failed(StorageUnavailableError(describe(error)))] * len(self._batch))

    def _finish(self, outcomes: _Outcomes) -> None:
        self._turn.end()
        self._tell(outcomes)

    def _give_up(self, error: StorageUnavailableError) -> None:
        self._batch, self._waiting = self._waiting, []
        self._tell([_Failed(error)] * len(self._batch))

    def _tell(self, outcomes: _Outcomes) -> None:
        batch, self._batch = self._batch, []
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue  # whoever asked was cancelled
            if isinstance(outcome, _Failed):
                future.set_exception(outcome.error)
            else:
                future.set_result(outcome.value)
        if self._waiting:
            self._ask()
        else:
            self._is_at_work = False
            self._idle.set()


class _Writer:
    """The thread and its connection. It lives from the first transaction to `close`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._orders: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def commit(self, batch: Sequence[Make], finish: Callable[[_Outcomes], None]) -> None:
        """Run transactions under one COMMIT, then call `finish` in the event loop."""
        loop = asyncio.get_running_loop()

        def order() -> None:
            outcomes = self._commit(batch)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish, outcomes)

        if self._thread is None:
            thread = threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
            thread.start()
            self._thread = thread
        self._orders.put(order)

    def close(self) -> None:
        """Close the connection and end the thread, which must have nothing to do."""
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()

    # --- in the thread

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            order()
        self._disconnect()

    def _commit(self, batch: Sequence[Make]) -> _Outcomes:
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
            return [_Failed(unavailable(error, commit_sent=commit_sent))] * len(batch)
        except Exception as error:  # noqa: BLE001 - a thread that ended would leave everybody waiting
            self._disconnect()
            return [_Failed(error)] * len(batch)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


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
            cursor = connection.execute(query.sql, query.args)
            fetched = [(cursor.rowcount,)] if query.is_counted else cursor.fetchall()
            query = transaction.send(query.rows(fetched))
    except StopIteration as end:
        value: T = end.value
        return value
