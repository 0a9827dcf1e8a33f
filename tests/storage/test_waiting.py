"""A run waits for a person: outside of any worker, through everything, until each question has one answer."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from storage.errors import RecordNotFoundError
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.records import AppendOutcome, Resolution, RunRecord, RunStatus, StoredEvent, ThreadConflict
from tests.support.storage import (
    LEASE_MS,
    ManualClock,
    a_run,
    accepted,
    an_append,
    an_ending,
    events,
    new_id,
    working,
)

WAIT_MS = 60_000
ONE = new_id()
TWO = new_id()


async def waiting(storage: Storage, *questions: str, wait_ms: int = WAIT_MS) -> RunRecord:
    """Return a run that waits for answers to these questions."""
    new = a_run()
    await storage.runs.accept(new)
    (run,) = await storage.runs.claim("w1", lease_ms=LEASE_MS, limit=1)
    assert await storage.runs.wait(run.run_id, run.epoch, questions or (ONE,), wait_ms=wait_ms)
    return await storage.runs.get("ada", run.run_id)


def resolution(
    run: RunRecord,
    *answered: str,
    goes_on: bool = True,
    lapsed: bool = False,
    edited: Mapping[str, bytes] | None = None,
) -> Resolution:
    """Return the answers to these questions, each told by one event."""
    ids = answered or (ONE,)
    told = events(run, run.last_seq, *[b"resolved"] * len(ids))
    return Resolution(run.run_id, run.epoch, run.last_seq, told, ids, goes_on, lapsed, edited or {})


async def log(storage: Storage, run: RunRecord) -> list[StoredEvent]:
    return list(await storage.events.read(run.user_id, run.run_id, 0, max_events=99, max_bytes=1 << 20))


async def test_a_waiting_run_has_no_worker_and_nobody_can_claim_it(storage: Storage) -> None:
    run = await waiting(storage)
    free = (run.status, run.worker_id, run.lease_expire_time, run.claims)
    assert free == (RunStatus.WAITING_APPROVAL, None, None, 0)
    assert run.status.is_open
    assert not await storage.runs.claim("w2", lease_ms=LEASE_MS, limit=9)
    assert await storage.runs.count_queued() == 0


async def test_a_waiting_run_survives_the_restart_of_an_embedded_service(storage: Storage) -> None:
    run = await waiting(storage)
    assert await storage.runs.release_all() == 0
    assert await storage.runs.get("ada", run.run_id) == run


async def test_the_next_message_of_its_thread_waits_behind_it(storage: Storage) -> None:
    run = await waiting(storage)
    await accepted(storage, a_run(thread_id=run.thread_id))
    elsewhere = await accepted(storage, a_run())
    claimed = await storage.runs.claim("w2", lease_ms=LEASE_MS, limit=9)
    assert [other.run_id for other in claimed] == [elsewhere.run_id]


async def test_a_fenced_worker_lets_nothing_wait(storage: Storage) -> None:
    run = await working(storage, a_run())
    assert not await storage.runs.wait(run.run_id, run.epoch - 1, [ONE], wait_ms=WAIT_MS)
    assert await storage.runs.get("ada", run.run_id) == run
    await storage.events.append([an_ending(run)])
    assert not await storage.runs.wait(run.run_id, run.epoch, [ONE], wait_ms=WAIT_MS)


async def test_an_answer_is_in_the_log_and_the_run_goes_on_as_the_same_attempt(storage: Storage) -> None:
    run = await waiting(storage)
    assert await storage.runs.resolve("ada", resolution(run))
    decided = await storage.runs.get("ada", run.run_id)
    assert decided == replace(run, status=RunStatus.QUEUED, epoch=run.epoch + 1, last_seq=run.last_seq + 1)
    assert [event.data for event in await log(storage, run)] == [b"started", b"resolved"]
    (again,) = await storage.runs.claim("w2", lease_ms=LEASE_MS, limit=9)
    assert (again.status, again.attempt, again.claims) == (RunStatus.RUNNING, run.attempt, 1)
    assert again.start_time == run.start_time


async def test_it_waits_until_the_last_question_is_answered(storage: Storage) -> None:
    run = await waiting(storage, ONE, TWO)
    assert await storage.runs.resolve("ada", resolution(run, ONE, goes_on=False))
    halfway = await storage.runs.get("ada", run.run_id)
    assert halfway.status is RunStatus.WAITING_APPROVAL
    assert await storage.runs.resolve("ada", resolution(halfway, TWO))
    assert (await storage.runs.get("ada", run.run_id)).status is RunStatus.QUEUED


@pytest.mark.parametrize("racers", [2, 8])
async def test_of_racing_answers_one_is_taken(storage: Storage, racers: int) -> None:
    run = await waiting(storage)
    taken = await asyncio.gather(*(storage.runs.resolve("ada", resolution(run)) for _ in range(racers)))
    assert sorted(taken) == [False] * (racers - 1) + [True]
    assert len(await log(storage, run)) == 2


async def test_a_question_is_answered_once_whatever_the_place_in_the_log(storage: Storage) -> None:
    run = await waiting(storage, ONE, TWO)
    assert await storage.runs.resolve("ada", resolution(run, ONE, goes_on=False))
    halfway = await storage.runs.get("ada", run.run_id)
    for answered in (ONE,), (TWO, ONE), (new_id(),):
        assert not await storage.runs.resolve("ada", resolution(halfway, *answered))
    assert await storage.runs.get("ada", run.run_id) == halfway
    assert len(await log(storage, run)) == 2


async def test_an_answer_to_what_the_log_said_before_is_not_taken(storage: Storage) -> None:
    run = await waiting(storage, ONE, TWO)
    assert await storage.runs.resolve("ada", resolution(run, ONE, goes_on=False))
    assert not await storage.runs.resolve("ada", resolution(run, TWO))
    assert len(await log(storage, run)) == 2


async def test_only_a_waiting_run_is_answered(storage: Storage) -> None:
    queued = await accepted(storage, a_run())
    running = await working(storage, a_run())
    for run in queued, running:
        assert not await storage.runs.resolve("ada", resolution(run))
        assert await storage.runs.get("ada", run.run_id) == run
    with pytest.raises(RecordNotFoundError):
        await storage.runs.resolve("ada", replace(resolution(queued), run_id=(gone := new_id()), events=()))
    with pytest.raises(RecordNotFoundError):
        await storage.runs.edited_args("ada", gone)


async def test_events_that_do_not_follow_the_log_are_a_defect(storage: Storage) -> None:
    run = await waiting(storage)
    for wrong in events(run, run.last_seq + 1, b"gap"), events(a_run(), run.last_seq, b"of another run"):
        with pytest.raises(ValueError, match="belongs"):
            await storage.runs.resolve("ada", replace(resolution(run), events=wrong))
    assert await storage.runs.get("ada", run.run_id) == run


async def test_whoever_held_the_run_before_an_answer_is_fenced(storage: Storage) -> None:
    run = await waiting(storage)
    assert await storage.runs.resolve("ada", resolution(run))
    assert list(await storage.events.append([an_append(run, b"late")])) == [AppendOutcome.FENCED]


async def test_edited_arguments_are_kept_with_the_answer(storage: Storage) -> None:
    run = await waiting(storage, ONE, TWO)
    assert await storage.runs.edited_args("ada", run.run_id) == {}
    edit = resolution(run, ONE, goes_on=False, edited={ONE: b'{"month":6}'})
    assert await storage.runs.resolve("ada", edit)
    assert not await storage.runs.resolve("ada", replace(edit, edited_args={ONE: b"other"}))
    assert await storage.runs.edited_args("ada", run.run_id) == {ONE: b'{"month":6}'}
    assert await storage.runs.edited_args("ada", (await waiting(storage)).run_id) == {}


async def test_a_question_whose_time_is_over_is_answered_by_time_alone(storage: Storage) -> None:
    over, patient = await waiting(storage, wait_ms=0), await waiting(storage)
    assert [run.run_id for run in await storage.runs.lapsed(limit=9)] == [over.run_id]
    assert not await storage.runs.resolve("ada", resolution(over))
    assert not await storage.runs.resolve("ada", resolution(patient, lapsed=True))
    assert await storage.runs.resolve("ada", resolution(over, lapsed=True))
    assert (await storage.runs.get("ada", over.run_id)).status is RunStatus.QUEUED
    assert not await storage.runs.lapsed(limit=9)


async def test_time_is_over_at_its_very_end() -> None:
    clock = ManualClock()
    storage = MemoryStorage(clock.now)
    run = await waiting(storage, wait_ms=1_000)
    clock.advance(0.999)
    assert not await storage.runs.lapsed(limit=9)
    clock.advance(0.001)
    assert await storage.runs.lapsed(limit=9) == [run]


async def test_no_more_lapsed_runs_than_asked_for_and_the_oldest_first(storage: Storage) -> None:
    runs = [await waiting(storage, wait_ms=0) for _ in range(3)]
    oldest = sorted(runs, key=lambda run: (run.create_time, run.run_id))
    assert [run.run_id for run in await storage.runs.lapsed(limit=2)] == [run.run_id for run in oldest[:2]]


async def test_asking_again_does_not_give_more_time(storage: Storage) -> None:
    run = await waiting(storage, ONE, TWO, wait_ms=0)
    held = await storage.runs.claim_run("ada", run.run_id, "w2", lease_ms=LEASE_MS)
    assert held is not None
    assert await storage.runs.wait(run.run_id, held.epoch, [ONE, TWO], wait_ms=WAIT_MS)
    assert [lapsed.run_id for lapsed in await storage.runs.lapsed(limit=9)] == [run.run_id]


async def test_a_cancelled_run_is_queued_so_that_a_worker_ends_it(storage: Storage) -> None:
    run = await waiting(storage)
    cancelled = await storage.runs.request_cancel("ada", run.run_id, "Enough.")
    assert cancelled == replace(run, status=RunStatus.QUEUED, cancel_reason="Enough.")
    assert not await storage.runs.resolve("ada", resolution(run))
    (claimed,) = await storage.runs.claim("w2", lease_ms=LEASE_MS, limit=9)
    assert claimed.cancel_reason == "Enough."


@pytest.mark.parametrize("conflict", [ThreadConflict.INTERRUPT, ThreadConflict.ROLLBACK])
async def test_a_newer_message_ends_the_waiting(storage: Storage, conflict: ThreadConflict) -> None:
    run = await waiting(storage)
    newer = await storage.runs.accept(replace(a_run(thread_id=run.thread_id), conflict=conflict))
    (interrupted,) = newer.interrupted
    assert (interrupted.run_id, interrupted.status) == (run.run_id, RunStatus.QUEUED)
    assert await storage.runs.claim_run("ada", run.run_id, "w2", lease_ms=LEASE_MS) is not None


async def test_a_run_that_is_to_end_does_not_begin_to_wait(storage: Storage) -> None:
    await storage.runs.accept(a_run())
    (run,) = await storage.runs.claim("w1", lease_ms=LEASE_MS, limit=1)
    await storage.runs.request_cancel("ada", run.run_id, "Enough.")
    assert await storage.runs.wait(run.run_id, run.epoch, [ONE], wait_ms=WAIT_MS)
    (again,) = await storage.runs.claim("w2", lease_ms=LEASE_MS, limit=9)
    assert (again.cancel_reason, again.attempt) == ("Enough.", run.attempt + 1)


async def test_a_waiting_run_goes_with_its_thread(storage: Storage) -> None:
    run = await waiting(storage)
    await storage.threads.delete("ada", run.thread_id)
    assert not await storage.runs.lapsed(limit=9)
    with pytest.raises(RecordNotFoundError):
        await storage.runs.resolve("ada", resolution(run))
