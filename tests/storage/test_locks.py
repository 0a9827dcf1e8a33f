"""Row locks in PostgreSQL: in one order everywhere (threads by id, then runs by id), so that nothing deadlocks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import Table, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database, open_database
from storage.event_log import SqlEventLog
from storage.records import RunRecord
from storage.runs import SqlRuns
from storage.schema import runs, threads
from storage.threads import SqlThreads
from tests.support.storage import LEASE_MS, a_run, an_append, an_ending, new_id

pytestmark = pytest.mark.postgres

COUNT_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@dataclass
class Held:
    """Two runs of two users that one worker holds, in the order of their ids."""

    database: Database
    observer: Database
    runs: Sequence[RunRecord]

    @asynccontextmanager
    async def locking(self, table: Table, row_id: str) -> AsyncIterator[None]:
        """Hold the lock of a row, as some other transaction would."""
        locked, may_go = asyncio.Event(), asyncio.Event()

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(select(table.c.id).where(table.c.id == row_id).with_for_update())
            locked.set()
            await may_go.wait()

        holding = asyncio.create_task(self.observer.write(work))
        await locked.wait()
        try:
            yield
        finally:
            may_go.set()
            await holding

    async def one_waits(self) -> None:
        """Return when a transaction waits for a lock."""
        while not (await self.observer.read(lambda connection: connection.execute(COUNT_WAITING))).scalar_one():
            pass

    async def is_free(self, row_id: str) -> bool:
        """Tell whether nobody has locked the run."""
        query = select(runs.c.id).where(runs.c.id == row_id).with_for_update(skip_locked=True)
        return (await self.observer.write(lambda connection: connection.execute(query))).one_or_none() is not None


@pytest.fixture
async def held(migrated_postgres_url: str) -> AsyncIterator[Held]:
    database, observer = open_database(migrated_postgres_url), open_database(migrated_postgres_url)
    claimed = []
    for _ in range(2):
        new = a_run(new_id())
        await SqlRuns(database).accept(new)
        run = await SqlRuns(database).claim_run(new.user_id, new.run_id, "w1", lease_ms=LEASE_MS)
        assert run is not None
        claimed.append(run)
    yield Held(database, observer, sorted(claimed, key=lambda run: run.run_id))
    for run in claimed:
        await SqlThreads(database).delete(run.user_id, run.thread_id)
    await database.close()
    await observer.close()


def append_backwards(held: Held) -> Awaitable[object]:
    return SqlEventLog(held.database).append([an_append(run, b"x") for run in held.runs[::-1]])


def beat_backwards(held: Held) -> Awaitable[object]:
    epochs = {run.run_id: run.epoch for run in held.runs[::-1]}
    return SqlRuns(held.database).beat("w1", epochs, lease_ms=LEASE_MS)


@pytest.mark.parametrize("work", [append_backwards, beat_backwards])
async def test_runs_are_locked_in_the_order_of_their_ids(held: Held, work: Callable[[Held], Awaitable[object]]) -> None:
    first, second = held.runs
    async with held.locking(runs, first.run_id):
        working = asyncio.ensure_future(work(held))
        await held.one_waits()
        assert await held.is_free(second.run_id)
    await working


async def test_an_ending_locks_the_thread_before_the_run(held: Held) -> None:
    run = held.runs[0]
    async with held.locking(threads, run.thread_id):
        working = asyncio.ensure_future(SqlEventLog(held.database).append([an_ending(run)]))
        await held.one_waits()
        assert await held.is_free(run.run_id)
    await working


async def test_a_position_waits_for_who_is_still_writing(held: Held) -> None:
    run = held.runs[0]
    async with held.locking(runs, run.run_id):
        asking = asyncio.ensure_future(SqlEventLog(held.database).positions([run.run_id]))
        await held.one_waits()
        assert not asking.done()
    assert (await asking)[run.run_id].last_seq == 1


async def test_a_look_that_need_not_be_final_waits_for_nobody(held: Held) -> None:
    looked_at = [run.run_id for run in held.runs]
    async with held.locking(runs, looked_at[1]):
        found = await asyncio.wait_for(SqlEventLog(held.database).positions(looked_at, final=False), 5)
    assert [position.last_seq for position in found.values()] == [1, 1]


async def test_a_claim_passes_over_a_run_that_somebody_has_locked(held: Held) -> None:
    for run in held.runs:
        await SqlRuns(held.database).release(run.run_id, run.epoch)
    async with held.locking(runs, held.runs[0].run_id):
        claimed = await SqlRuns(held.database).claim("w2", lease_ms=LEASE_MS, limit=9)
        assert [run.run_id for run in claimed] == [held.runs[1].run_id]
