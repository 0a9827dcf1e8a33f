"""What `Runs.accept` promises, on every storage."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from storage.acceptance import INTERRUPTED
from storage.database import open_database
from storage.errors import (
    IdempotencyMismatchError,
    RecordNotFoundError,
    ThreadBusyError,
    TooManyOpenRunsError,
)
from storage.interfaces import Storage
from storage.records import MessageRole, RunRecord, RunStatus, StoredEvent, ThreadConflict, ThreadRecord
from storage.runs import SqlRuns
from storage.schema import runs
from tests.support.storage import a_run, accepted, an_append, an_ending, at, new_id, working


async def test_a_new_run_is_saved_with_its_thread_message_and_first_event(storage: Storage) -> None:
    new = a_run(key="k1", at_s=7)
    outcome = await storage.runs.accept(new)
    expected = RunRecord(
        run_id=new.run_id,
        thread_id=new.thread_id,
        user_id="ada",
        scopes=("chat", "databases:read"),
        position=1,
        status=RunStatus.QUEUED,
        agent="",
        client_message_id="k1",
        fingerprint="print",
        request=b"\x00request\xff",
        user_message_id=new.user_message_id,
        epoch=0,
        attempt=1,
        last_seq=1,
        claims=0,
        cancel_reason=None,
        superseded_by_run_id=None,
        worker_id=None,
        lease_expire_time=None,
        create_time=at(7),
        start_time=None,
        end_time=None,
        error_reason=None,
    )
    assert outcome.run == expected
    assert (outcome.already_existed, outcome.thread_created, outcome.interrupted) == (False, True, ())
    assert list(outcome.events) == [StoredEvent(new.run_id, 1, b"started")]
    assert await storage.runs.get("ada", new.run_id) == expected
    thread = ThreadRecord(new.thread_id, "ada", "A thread", at(7), at(7))
    assert await storage.threads.get("ada", new.thread_id) == thread
    (message,) = (await storage.threads.list_messages("ada", new.thread_id, page_size=9)).items
    assert (message.message_id, message.run_id) == (new.user_message_id, new.run_id)
    assert (message.role, message.content, message.create_time) == (MessageRole.USER, "How much?", at(7))
    read = await storage.events.read("ada", new.run_id, 0, max_events=9, max_bytes=99)
    assert list(read) == [StoredEvent(new.run_id, 1, b"started")]


async def test_the_queued_event_is_saved_when_the_run_must_wait(storage: Storage) -> None:
    outcome = await storage.runs.accept(replace(a_run(), must_wait=True))
    assert [event.data for event in outcome.events] == [b"started", b"queued"]
    assert outcome.run.last_seq == 2


async def test_the_queued_event_is_saved_when_the_thread_has_an_open_run(storage: Storage) -> None:
    first = await accepted(storage, a_run())
    outcome = await storage.runs.accept(a_run(thread_id=first.thread_id, at_s=5))
    assert [event.data for event in outcome.events] == [b"started", b"queued"]
    assert (outcome.run.position, outcome.thread_created, outcome.interrupted) == (2, False, ())
    assert (await storage.threads.get("ada", first.thread_id)).update_time == at(5)
    read = await storage.events.read("ada", outcome.run.run_id, 0, max_events=9, max_bytes=99)
    assert list(read) == list(outcome.events)


async def test_no_queued_event_once_the_thread_is_free_again(storage: Storage) -> None:
    run = await working(storage, a_run())
    await storage.events.append([an_ending(run)])
    outcome = await storage.runs.accept(a_run(thread_id=run.thread_id))
    assert [event.data for event in outcome.events] == [b"started"]


async def test_the_same_key_finds_the_existing_run(storage: Storage) -> None:
    first = await working(storage, a_run(key="k1"))
    await storage.events.append([an_append(first, b"more")])
    again = await storage.runs.accept(replace(a_run(key="k1"), max_open_runs=0))
    assert again.already_existed
    assert (again.run.run_id, again.run.last_seq) == (first.run_id, 2)
    assert (again.events, again.thread_created, again.interrupted) == ((), False, ())


async def test_the_same_key_finds_a_run_that_has_ended(storage: Storage) -> None:
    run = await working(storage, a_run(key="k1"))
    await storage.events.append([an_ending(run)])
    again = await storage.runs.accept(a_run(key="k1"))
    assert (again.run.run_id, again.run.status) == (run.run_id, RunStatus.COMPLETED)


async def test_the_same_key_with_another_request_is_refused(storage: Storage) -> None:
    await accepted(storage, a_run(key="k1"))
    with pytest.raises(IdempotencyMismatchError):
        await storage.runs.accept(replace(a_run(key="k1"), fingerprint="other"))


async def test_the_key_is_the_users_own(storage: Storage) -> None:
    first = await accepted(storage, a_run("ada", key="k1"))
    other = await storage.runs.accept(a_run("bob", key="k1"))
    assert not other.already_existed
    assert other.run.run_id != first.run_id


async def test_no_key_is_no_key(storage: Storage) -> None:
    await accepted(storage, a_run())
    assert not (await storage.runs.accept(a_run())).already_existed


@pytest.mark.parametrize("racers", [2, 12])
async def test_racing_calls_with_one_key_make_one_run(storage: Storage, racers: int) -> None:
    outcomes = await asyncio.gather(*(storage.runs.accept(a_run(key="k1")) for _ in range(racers)))
    assert sum(not outcome.already_existed for outcome in outcomes) == 1
    assert len({outcome.run.run_id for outcome in outcomes}) == 1
    assert len((await storage.runs.list("ada", page_size=50)).items) == 1
    assert len((await storage.threads.list("ada", page_size=50)).items) == 1


async def test_the_database_itself_refuses_a_second_run_with_a_key(database_url: str) -> None:
    database = open_database(database_url)
    first, second = a_run(key="k1"), a_run(key="k2")
    for new in (first, second):
        await SqlRuns(database).accept(new)
    same = update(runs).where(runs.c.id == second.run_id).values(client_message_id="k1")
    with pytest.raises(IntegrityError):
        await database.write(lambda connection: connection.execute(same))
    await database.close()


async def test_an_unknown_thread_is_refused(storage: Storage) -> None:
    with pytest.raises(RecordNotFoundError):
        await storage.runs.accept(a_run(thread_id=new_id()))
    assert not (await storage.runs.list("ada", page_size=9)).items


async def test_somebody_elses_thread_is_unknown(storage: Storage) -> None:
    run = await accepted(storage, a_run("ada"))
    with pytest.raises(RecordNotFoundError):
        await storage.runs.accept(a_run("bob", thread_id=run.thread_id, at_s=9))
    assert (await storage.threads.get("ada", run.thread_id)).update_time == at(0)


async def test_the_cap_of_open_runs(storage: Storage) -> None:
    first = await working(storage, a_run("ada"))
    await accepted(storage, replace(a_run("ada"), max_open_runs=2))
    await accepted(storage, a_run("bob"))
    refused = replace(a_run("ada"), max_open_runs=2)
    with pytest.raises(TooManyOpenRunsError):
        await storage.runs.accept(refused)
    with pytest.raises(RecordNotFoundError):
        await storage.threads.get("ada", refused.thread_id)
    await storage.events.append([an_ending(first)])
    await accepted(storage, refused)


async def test_the_cap_holds_for_racing_calls(storage: Storage) -> None:
    racing = (storage.runs.accept(replace(a_run(), max_open_runs=3)) for _ in range(9))
    outcomes = await asyncio.gather(*racing, return_exceptions=True)
    assert sum(isinstance(outcome, TooManyOpenRunsError) for outcome in outcomes) == 6
    assert len((await storage.runs.list("ada", page_size=50)).items) == 3


async def test_the_cap_is_checked_before_the_conflict(storage: Storage) -> None:
    run = await accepted(storage, a_run())
    new = replace(a_run(thread_id=run.thread_id), conflict=ThreadConflict.REJECT, max_open_runs=1)
    with pytest.raises(TooManyOpenRunsError):
        await storage.runs.accept(new)


async def test_reject_saves_nothing(storage: Storage) -> None:
    run = await accepted(storage, a_run())
    new = replace(a_run(thread_id=run.thread_id, at_s=9), conflict=ThreadConflict.REJECT)
    with pytest.raises(ThreadBusyError):
        await storage.runs.accept(new)
    with pytest.raises(RecordNotFoundError):
        await storage.runs.get("ada", new.run_id)
    assert (await storage.threads.get("ada", run.thread_id)).update_time == at(0)
    assert len((await storage.threads.list_messages("ada", run.thread_id, page_size=9)).items) == 1


async def test_reject_accepts_where_the_thread_is_free(storage: Storage) -> None:
    run = await working(storage, a_run())
    await storage.events.append([an_ending(run)])
    new = replace(a_run(thread_id=run.thread_id), conflict=ThreadConflict.REJECT)
    assert (await accepted(storage, new)).position == 2


async def test_interrupt_requests_the_cancellation_of_open_runs(storage: Storage) -> None:
    ended = await working(storage, a_run())
    await storage.events.append([an_ending(ended)])
    thread_id = ended.thread_id
    asked = await accepted(storage, a_run(thread_id=thread_id))
    await storage.runs.request_cancel("ada", asked.run_id, "stop")
    waiting = await accepted(storage, a_run(thread_id=thread_id))
    elsewhere = await accepted(storage, a_run())
    new = replace(a_run(thread_id=thread_id), conflict=ThreadConflict.INTERRUPT)
    outcome = await storage.runs.accept(new)
    assert [run.run_id for run in outcome.interrupted] == [asked.run_id, waiting.run_id]
    assert [run.cancel_reason for run in outcome.interrupted] == ["stop", INTERRUPTED]
    assert outcome.run.cancel_reason is None
    for run in outcome.interrupted:
        assert await storage.runs.get("ada", run.run_id) == run
        assert run.superseded_by_run_id is None
    for untouched in (ended, elsewhere):
        assert (await storage.runs.get("ada", untouched.run_id)).cancel_reason is None


async def test_rollback_also_hides_the_messages_of_open_runs(storage: Storage) -> None:
    ended = await working(storage, a_run())
    await storage.events.append([an_ending(ended)])
    thread_id = ended.thread_id
    replaced = await working(storage, a_run(thread_id=thread_id))
    first = replace(a_run(thread_id=thread_id), conflict=ThreadConflict.ROLLBACK)
    (interrupted,) = (await storage.runs.accept(first)).interrupted
    assert (interrupted.superseded_by_run_id, interrupted.cancel_reason) == (first.run_id, INTERRUPTED)
    # Its worker may finish it all the same; what it says stays hidden.
    await storage.events.append([an_ending(replaced)])
    second = replace(a_run(thread_id=thread_id), conflict=ThreadConflict.ROLLBACK)
    await storage.runs.accept(second)
    assert (await storage.runs.get("ada", replaced.run_id)).superseded_by_run_id == first.run_id
    assert (await storage.runs.get("ada", ended.run_id)).superseded_by_run_id is None
    listed = (await storage.threads.list_messages("ada", thread_id, page_size=9)).items
    assert [message.run_id for message in listed] == [ended.run_id, ended.run_id, second.run_id]
    history = await storage.threads.history("ada", thread_id, before_position=9, limit=9)
    assert list(history) == list(listed)


async def test_an_open_runs_first_successor_stays(storage: Storage) -> None:
    run = await accepted(storage, a_run())
    first = replace(a_run(thread_id=run.thread_id), conflict=ThreadConflict.ROLLBACK)
    second = replace(a_run(thread_id=run.thread_id), conflict=ThreadConflict.ROLLBACK)
    await storage.runs.accept(first)
    outcome = await storage.runs.accept(second)
    assert [one.superseded_by_run_id for one in outcome.interrupted] == [first.run_id, second.run_id]


async def test_positions_count_the_runs_of_a_thread_when_calls_race(storage: Storage) -> None:
    first = await accepted(storage, a_run())
    racing = (accepted(storage, a_run(thread_id=first.thread_id)) for _ in range(8))
    assert sorted(run.position for run in await asyncio.gather(*racing)) == list(range(2, 10))
