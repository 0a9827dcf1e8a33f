"""Transactions: cancelled callers, lost connections, lost COMMITs, and readers beside a writer."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.data_dir import files_path
from storage.database import Database, open_database, sqlite_url
from storage.errors import StorageUnavailableError
from storage.event_log import SqlEventLog
from storage.files import open_files
from storage.records import AppendOutcome
from storage.runs import SqlRuns
from storage.schema import threads
from storage.threads import SqlThreads
from tests.support.faulty_commit import Fault, FaultPlan, faulty_postgres, faulty_sqlite
from tests.support.processes import free_port
from tests.support.storage import LEASE_MS, a_run, an_append, at, new_id
from tests.support.waiting import eventually


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = open_database(database_url)
    yield database
    await database.close()


async def add_thread(connection: AsyncConnection) -> str:
    thread_id = new_id()
    await connection.execute(
        threads.insert().values(id=thread_id, user_id="ada", title="", create_time=at(0), update_time=at(0))
    )
    return thread_id


async def count_threads(database: Database) -> int:
    query = select(func.count()).select_from(threads)
    return (await database.read(lambda connection: connection.execute(query))).scalar_one()


class Paused:
    """A transaction that stops in its middle until it may go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def __call__(self, connection: AsyncConnection) -> None:
        await add_thread(connection)
        self.reached.set()
        await self.may_go_on.wait()
        await add_thread(connection)


async def test_a_write_is_committed_or_rolled_back_as_a_whole(database: Database) -> None:
    async def fail(connection: AsyncConnection) -> None:
        await add_thread(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(fail)
    assert await count_threads(database) == 0
    await database.write(add_thread)
    assert await count_threads(database) == 1


async def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    paused = Paused()
    writing = asyncio.create_task(database.write(paused))
    await paused.reached.wait()
    assert await count_threads(database) == 0
    assert not writing.done()
    paused.may_go_on.set()
    await writing
    assert await count_threads(database) == 2


async def test_a_cancelled_write_goes_on_to_its_end_and_closing_waits_for_it(
    database: Database, database_url: str
) -> None:
    paused = Paused()
    writing = asyncio.create_task(database.write(paused))
    await paused.reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await count_threads(database) == 0
    closing = asyncio.create_task(database.close())
    await asyncio.wait([closing], timeout=0)
    assert not closing.done()
    paused.may_go_on.set()
    await closing
    again = open_database(database_url)
    assert await count_threads(again) == 2
    await again.close()


async def test_appends_cancelled_at_any_moment_leave_the_log_whole(database: Database) -> None:
    runs, log = SqlRuns(database), SqlEventLog(database)
    new = a_run()
    await runs.accept(new)
    run = await runs.claim_run("ada", new.run_id, "w1", lease_ms=LEASE_MS)
    assert run is not None
    for moment in range(40):
        position = (await log.positions([run.run_id]))[run.run_id]
        data = b"%d" % moment
        append = an_append(replace(run, last_seq=position.last_seq), data)
        appending = asyncio.create_task(log.append([append]))
        for _ in range(moment):
            await asyncio.sleep(0)
        appending.cancel()
        await asyncio.wait([appending])
        # `positions` waits for what the append began, wherever it was cancelled.
        after = (await log.positions([run.run_id]))[run.run_id]
        assert after.last_seq in {position.last_seq, position.last_seq + 1}
    last_seq = (await log.positions([run.run_id]))[run.run_id].last_seq
    assert list(await log.append([an_append(replace(run, last_seq=last_seq), b"last")])) == [AppendOutcome.APPENDED]
    read = await log.read("ada", run.run_id, 0, max_events=99, max_bytes=9999)
    assert [event.seq for event in read] == list(range(1, last_seq + 2))


async def test_reads_that_nobody_waits_for_any_more_do_not_pile_up(database: Database) -> None:
    may_go_on = asyncio.Event()
    begun = 0

    async def read(connection: AsyncConnection) -> None:
        nonlocal begun
        begun += 1
        await connection.execute(text("SELECT 1"))
        await may_go_on.wait()

    reading = [asyncio.create_task(database.read(read)) for _ in range(100)]
    await eventually(lambda: begun > 1, what="as many as can have begun")
    for task in reading:
        task.cancel()
    await asyncio.wait(reading)
    may_go_on.set()
    assert await count_threads(database) == 0
    assert begun < 10


async def test_a_closed_database_is_unavailable(database: Database) -> None:
    await database.write(add_thread)
    await database.close()
    for work in (database.ping(), database.write(add_thread)):
        with pytest.raises(StorageUnavailableError, match="closed") as refusal:
            await work
        assert not refusal.value.outcome_unknown


async def test_defects_are_not_taken_for_failures_of_the_database(database: Database) -> None:
    thread_id = await database.write(add_thread)

    async def again(connection: AsyncConnection) -> None:
        await connection.execute(
            threads.insert().values(id=thread_id, user_id="ada", title="", create_time=at(0), update_time=at(0))
        )

    with pytest.raises(IntegrityError):
        await database.write(again)
    assert await count_threads(database) == 1


async def test_the_database_answers(database: Database) -> None:
    await database.ping()


@pytest.mark.parametrize(
    "url", ["mysql://x/y", "sqlite:///x.db", "sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "postgresql://x/y"]
)
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with"):
        open_database(url)


def test_a_refused_address_does_not_show_its_password() -> None:
    with pytest.raises(ValueError, match="must begin with") as refusal:
        open_database("mysql://ada:secret@host/y")
    assert "secret" not in str(refusal.value)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    database = open_database(f"postgresql+asyncpg://postgres@127.0.0.1:{free_port()}/nowhere")
    with pytest.raises(StorageUnavailableError) as failure:
        await database.ping()
    assert not failure.value.outcome_unknown
    with pytest.raises(StorageUnavailableError):
        await database.write(add_thread)
    await database.close()


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    threads_before = threading.active_count()
    database = open_database(sqlite_url(tmp_path / "missing" / "apex.db"))
    with pytest.raises(StorageUnavailableError):
        await database.ping()
    await database.close()
    # The driver's thread tells this loop of its end, and nobody awaits that.
    await eventually(lambda: threading.active_count() <= threads_before, what="the driver's thread has ended")


@pytest.mark.postgres
async def test_a_connection_that_died_in_the_pool_goes_unnoticed(migrated_postgres_url: str) -> None:
    database, other = open_database(migrated_postgres_url), open_database(migrated_postgres_url)
    await database.ping()
    await database.write(add_thread)
    end_others = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )
    await other.read(lambda connection: connection.execute(end_others))
    await database.ping()
    await database.write(add_thread)
    await database.close()
    await other.close()


@pytest.mark.postgres
async def test_a_vanished_client_leaves_no_open_transaction(migrated_postgres_url: str) -> None:
    observer = open_database(migrated_postgres_url)
    idle = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )

    async def count_idle() -> int:
        return int((await observer.read(lambda connection: connection.execute(idle))).scalar_one())

    database = open_database(migrated_postgres_url)
    paused = Paused()
    writing = asyncio.create_task(database.write(paused))
    await paused.reached.wait()
    assert await count_idle() == 1
    writing.cancel()
    paused.may_go_on.set()
    await database.close()
    assert await count_idle() == 0
    await observer.close()


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_a_lost_commit_in_sqlite(data_dir: Path, fault: Fault) -> None:
    plan = FaultPlan()
    database = open_database(sqlite_url(data_dir / "apex.db"), sqlite_connection_class=faulty_sqlite(plan))
    await check_lost_commits(database, data_dir, plan, fault)


@pytest.mark.postgres
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_a_lost_commit_in_postgres(migrated_postgres_url: str, tmp_path: Path, fault: Fault) -> None:
    plan = FaultPlan()
    async with faulty_postgres(migrated_postgres_url, plan) as url:
        await check_lost_commits(open_database(url), tmp_path, plan, fault)


async def check_lost_commits(database: Database, data_dir: Path, plan: FaultPlan, fault: Fault) -> None:
    done = fault is Fault.AFTER
    user_id = new_id()
    runs, conversations = SqlRuns(database), SqlThreads(database)
    new = a_run(user_id, key="k1")
    # What a fresh connection does for itself is none of the plan's business.
    await database.write(add_thread)
    plan.next = fault
    with pytest.raises(StorageUnavailableError) as lost:
        await runs.accept(new)
    assert lost.value.outcome_unknown
    # The key makes the repetition safe.
    assert (await runs.accept(new)).already_existed == done
    assert len((await conversations.list(user_id, page_size=9)).items) == 1

    files = await open_files(database, files_path(data_dir), embedded=True)
    async with files.upload(user_id, new_id(), "a", "b", max_bytes=9) as upload:
        await upload.write(b"content")
        plan.next = fault
        with pytest.raises(StorageUnavailableError) as lost:
            await upload.commit(at(0))
    assert lost.value.outcome_unknown
    found = (await files.list(user_id, page_size=9)).items
    assert len(found) == done
    for file in found:
        assert b"".join([piece async for piece in files.read(user_id, file.file_id)]) == b"content"
    await database.close()


async def test_a_write_waits_for_the_abandoned_one_in_sqlite(data_dir: Path) -> None:
    database = open_database(sqlite_url(data_dir / "apex.db"))
    paused = Paused()
    writing = asyncio.create_task(database.write(paused))
    await paused.reached.wait()
    writing.cancel()
    following = asyncio.create_task(database.write(add_thread))
    await asyncio.wait([writing])
    paused.may_go_on.set()
    await following
    assert await count_threads(database) == 3
    await database.close()


async def test_an_error_does_not_quote_what_was_to_be_stored(database: Database) -> None:
    statement = text("INSERT INTO threads (id, user_id, title) VALUES (:id, 'ada', :words)")
    with pytest.raises(IntegrityError) as failure:
        await database.write(lambda connection: connection.execute(statement, {"id": new_id(), "words": "my words"}))
    assert "my words" not in str(failure.value).partition("DETAIL")[0]
