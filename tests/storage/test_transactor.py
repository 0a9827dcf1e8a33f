"""Short transactions of prepared statements, on both databases; and how SQLite's share one COMMIT."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import bindparam, func, insert, select, text

from storage.database import Database, open_database, sqlite_url
from storage.errors import RecordNotFoundError, StorageUnavailableError
from storage.prepared import Query, Transaction, row_of
from storage.schema import threads
from storage.writers_turn import WritersTurn
from tests.support.faulty_commit import Fault, FaultPlan, faulty_sqlite
from tests.support.gates import is_stuck
from tests.support.storage import at, new_id


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = open_database(database_url)
    yield database
    await database.close()


class Desk:
    """The transactions of these tests."""

    def __init__(self, database: Database) -> None:
        self._insert = database.prepare(insert(threads))
        self._count = database.prepare(select(func.count().label("threads")).where(threads.c.user_id == "ada"))
        self._get = database.prepare(select(threads).where(threads.c.id == bindparam("thread_id")))

    def add(self, thread_id: str = "", *, then: Exception | None = None) -> Transaction[int]:
        """Add a thread, return how many there are, or fail."""
        moment = at(0.25)
        yield self._insert(
            id=thread_id or new_id(), user_id="ada", title="Ünïcode", create_time=moment, update_time=moment
        )
        rows = yield self._count()
        if then is not None:
            raise then
        return int(rows[0].threads)

    def get(self, thread_id: str) -> Transaction[tuple[object, ...]]:
        """Return a thread's title and time."""
        rows = yield self._get(thread_id=thread_id)
        return rows[0].title, rows[0].create_time


async def test_values_pass_through_their_types(database: Database) -> None:
    desk, thread_id = Desk(database), new_id()
    assert await database.transact(lambda: desk.add(thread_id)) == 1
    assert await database.transact(lambda: desk.get(thread_id)) == ("Ünïcode", at(0.25))


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    desk = Desk(database)
    with pytest.raises(RecordNotFoundError):
        await database.transact(lambda: desk.add(then=RecordNotFoundError("thread", "x")))
    assert await database.transact(desk.add) == 1


async def test_one_that_fails_takes_no_other_with_it(database: Database) -> None:
    desk, taken = Desk(database), new_id()
    await database.transact(lambda: desk.add(taken))
    outcomes = await asyncio.gather(
        database.transact(desk.add),
        database.transact(lambda: desk.add(then=RecordNotFoundError("thread", "x"))),
        database.transact(lambda: desk.add(taken)),
        database.transact(desk.add),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, True, False]
    assert isinstance(outcomes[1], RecordNotFoundError)
    assert await database.transact(desk.add) == 4


async def test_a_cancelled_caller_abandons_the_result_only(database: Database, database_url: str) -> None:
    desk = Desk(database)
    await database.transact(desk.add)
    asking = asyncio.create_task(database.transact(desk.add))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    await database.close()  # waits for what was begun
    again = open_database(database_url)
    assert await again.transact(Desk(again).add) == 3
    await again.close()


async def test_a_transaction_begins_again_from_its_beginning_only_where_nothing_was_done(database: Database) -> None:
    desk, made = Desk(database), 0

    def make() -> Transaction[int]:
        nonlocal made
        made += 1
        return desk.add()

    await database.transact(make)
    assert made == 1


def counting(commits: list[int]) -> type[sqlite3.Connection]:
    class CountingConnection(sqlite3.Connection):
        def commit(self) -> None:
            commits.append(1)
            super().commit()

    return CountingConnection


async def test_sqlites_transactions_that_wait_share_one_commit(data_dir: Path) -> None:
    commits: list[int] = []
    database = open_database(sqlite_url(data_dir / "apex.db"), sqlite_connection_class=counting(commits))
    desk = Desk(database)
    await database.transact(desk.add)
    assert len(commits) == 1
    await asyncio.gather(*(database.transact(desk.add) for _ in range(21)))
    # The first went alone, the others came while it was at work.
    assert len(commits) == 3
    assert await database.transact(desk.add) == 23
    await database.close()


async def test_a_commit_that_fails_fails_for_all_of_its_transactions(data_dir: Path) -> None:
    plan = FaultPlan()
    database = open_database(sqlite_url(data_dir / "apex.db"), sqlite_connection_class=faulty_sqlite(plan))
    desk = Desk(database)
    await database.transact(desk.add)

    def with_fault() -> Transaction[int]:
        plan.next = Fault.BEFORE
        return desk.add()

    outcomes = await asyncio.gather(
        *(database.transact(make) for make in (desk.add, with_fault, desk.add)), return_exceptions=True
    )
    assert outcomes[0] == 2
    for outcome in outcomes[1:]:
        assert isinstance(outcome, StorageUnavailableError)
        assert outcome.outcome_unknown
    assert await database.transact(desk.add) == 3
    await database.close()


async def test_sqlites_other_writers_and_short_transactions_take_turns(data_dir: Path) -> None:
    database = open_database(sqlite_url(data_dir / "apex.db"))
    desk, reached, may_go_on = Desk(database), asyncio.Event(), asyncio.Event()

    async def work(_connection: object) -> None:
        reached.set()
        await may_go_on.wait()

    writing = asyncio.create_task(database.write(work))
    await reached.wait()
    asking = asyncio.create_task(database.transact(desk.add))
    assert await is_stuck(asking)
    may_go_on.set()
    await writing
    assert await asking == 1
    await database.close()


async def test_turns_come_in_order_and_a_cancelled_one_is_passed_on() -> None:
    turn, came = WritersTurn(timeout_s=60), list[str]()

    def begin(name: str) -> Callable[[], None]:
        return lambda: came.append(name)

    turn.ask(begin("first"), lambda _: None)
    holding = asyncio.create_task(_hold(turn))
    await asyncio.sleep(0)
    turn.ask(begin("third"), lambda _: None)
    assert came == ["first"]
    holding.cancel()
    await asyncio.wait([holding])
    turn.end()
    assert came == ["first", "third"]


async def test_whoever_waits_too_long_for_a_turn_is_told_so() -> None:
    turn, refused = WritersTurn(timeout_s=0.01), asyncio.Event()
    turn.ask(lambda: None, lambda _: None)
    turn.ask(lambda: None, lambda _: refused.set())
    with pytest.raises(StorageUnavailableError, match="busy"):
        await _hold(turn)
    await asyncio.wait_for(refused.wait(), 5)
    turn.end()
    async with turn():
        pass


async def _hold(turn: WritersTurn) -> None:
    async with turn():
        await asyncio.Event().wait()


async def test_a_thread_that_cannot_be_started_leaves_nobody_waiting(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(sqlite_url(data_dir / "apex.db"))
    desk = Desk(database)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StorageUnavailableError, match="thread"):
            await database.transact(desk.add)
    assert await database.transact(desk.add) == 1
    await database.close()


@pytest.mark.postgres
async def test_each_statement_sees_what_is_committed_whatever_the_server_is_set_to(migrated_postgres_url: str) -> None:
    database = open_database(migrated_postgres_url)

    def isolation() -> Transaction[str]:
        rows = yield Query("SELECT current_setting('transaction_isolation') AS level", (), row_of("level"))
        return str(rows[0].level)

    strict = """
    DO $$ BEGIN
      EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = "repeatable read"', current_database());
    END $$
    """
    await database.write(lambda connection: connection.execute(text(strict)))
    await database.close()
    again = open_database(migrated_postgres_url)
    assert await again.transact(isolation) == "read committed"
    await again.close()
