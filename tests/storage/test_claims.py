"""What claims, heartbeats, hand-overs and cancellations promise, on every storage."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.errors import RecordNotFoundError
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.opening import open_storage
from storage.records import AppendOutcome, Beat, Checkpoint, RunRecord, RunStatus
from tests.support.storage import (
    LEASE_MS,
    NO_LEASE_MS,
    ManualClock,
    a_run,
    accepted,
    an_append,
    an_ending,
    new_id,
    working,
)


async def claim_ids(storage: Storage, limit: int = 99, *, lease_ms: int = LEASE_MS) -> list[str]:
    """Claim for a worker and return the runs' ids."""
    return [run.run_id for run in await storage.runs.claim("w1", lease_ms=lease_ms, limit=limit)]


async def test_a_claim_takes_a_queued_run(storage: Storage) -> None:
    queued = await accepted(storage, a_run())
    (run,) = await storage.runs.claim("w1", lease_ms=LEASE_MS, limit=5)
    assert run == replace(
        queued,
        status=RunStatus.RUNNING,
        epoch=1,
        attempt=1,
        claims=1,
        worker_id="w1",
        lease_expire_time=run.lease_expire_time,
        start_time=run.start_time,
    )
    assert await storage.runs.get("ada", run.run_id) == run
    assert run.start_time is not None
    assert run.lease_expire_time is not None
    # Both come from the same clock, a moment apart.
    assert abs(run.lease_expire_time - run.start_time - timedelta(milliseconds=LEASE_MS)) < timedelta(seconds=1)
    assert await claim_ids(storage) == []


async def test_a_claim_takes_no_more_than_its_limit(storage: Storage) -> None:
    for number in range(3):
        await accepted(storage, a_run(f"user{number}"))
    assert len(await claim_ids(storage, 2)) == 2
    assert len(await claim_ids(storage, 2)) == 1


async def test_a_run_whose_lease_has_ended_is_claimed_again(storage: Storage) -> None:
    await accepted(storage, a_run())
    (first,) = await storage.runs.claim("w1", lease_ms=NO_LEASE_MS, limit=1)
    (second,) = await storage.runs.claim("w2", lease_ms=LEASE_MS, limit=1)
    assert (second.epoch, second.attempt, second.claims) == (2, 2, 2)
    assert (second.worker_id, second.start_time) == ("w2", first.start_time)


async def test_a_run_that_was_handed_over_is_claimed_again(storage: Storage) -> None:
    run = await working(storage, a_run())
    (held,) = await claim_all_after_release(storage, run.run_id, run.epoch)
    assert (held.epoch, held.attempt, held.claims) == (2, 1, 1)
    (again,) = await claim_all_after_release(storage, held.run_id, held.epoch)
    assert (again.epoch, again.attempt, again.claims) == (3, 2, 1)


async def claim_all_after_release(storage: Storage, run_id: str, epoch: int) -> list[RunRecord]:
    assert await storage.runs.release(run_id, epoch)
    return list(await storage.runs.claim("w2", lease_ms=LEASE_MS, limit=9))


async def test_a_claimed_queued_run_waits_until_its_holder_is_gone(storage: Storage) -> None:
    run = await working(storage, a_run())
    assert run.status is RunStatus.QUEUED
    assert await claim_ids(storage) == []


async def test_only_the_first_open_run_of_a_thread_is_claimable(storage: Storage) -> None:
    first = await accepted(storage, a_run(at_s=5))
    second = await accepted(storage, a_run(thread_id=first.thread_id, at_s=1))
    assert await claim_ids(storage) == [first.run_id]
    assert await claim_ids(storage) == []
    held = await storage.runs.get("ada", first.run_id)
    await storage.events.append([an_ending(held)])
    assert await claim_ids(storage) == [second.run_id]


async def test_older_runs_come_first(storage: Storage) -> None:
    late = await accepted(storage, a_run("ada", at_s=2))
    early = await accepted(storage, a_run("bob", at_s=1))
    assert await claim_ids(storage) == [early.run_id, late.run_id]


async def test_users_with_fewer_working_runs_come_first(storage: Storage) -> None:
    await accepted(storage, a_run("ada"))
    assert len(await claim_ids(storage)) == 1
    busy = await accepted(storage, a_run("ada", at_s=1))
    idle = await accepted(storage, a_run("bob", at_s=2))
    assert await claim_ids(storage) == [idle.run_id, busy.run_id]


async def test_a_run_whose_worker_is_silent_does_not_count_as_working(storage: Storage) -> None:
    abandoned = await accepted(storage, a_run("ada", at_s=0))
    await claim_ids(storage, lease_ms=NO_LEASE_MS)
    await accepted(storage, a_run("bob", at_s=1))
    (lost,) = await claim_ids(storage, 1)
    assert lost == abandoned.run_id


async def test_each_user_gets_one_run_before_any_gets_two(storage: Storage) -> None:
    ada = [(await accepted(storage, a_run("ada", at_s=second))).run_id for second in range(3)]
    bob = [(await accepted(storage, a_run("bob", at_s=10 + second))).run_id for second in range(2)]
    assert await claim_ids(storage, 2) == [ada[0], bob[0]]
    assert await claim_ids(storage) == [ada[1], bob[1], ada[2]]


async def test_a_second_run_never_passes_another_users_first(storage: Storage) -> None:
    for _ in range(2):
        await working_now(storage, "bob")
    ada = [(await accepted(storage, a_run("ada", at_s=second))).run_id for second in range(2)]
    bob = await accepted(storage, a_run("bob", at_s=50))
    assert await claim_ids(storage, 2) == [ada[0], bob.run_id]


async def working_now(storage: Storage, user_id: str) -> None:
    await accepted(storage, a_run(user_id))
    assert len(await claim_ids(storage)) == 1


async def test_racing_claims_never_share_a_run(storage: Storage) -> None:
    wanted = {(await accepted(storage, a_run(f"user{number % 5}"))).run_id for number in range(20)}
    for _ in range(8):
        racing = (storage.runs.claim(f"w{number}", lease_ms=LEASE_MS, limit=7) for number in range(5))
        claimed = [run.run_id for runs in await asyncio.gather(*racing) for run in runs]
        assert len(claimed) == len(set(claimed))
        assert {*claimed, *await claim_ids(storage)} == wanted
        await storage.runs.release_all()


async def test_claiming_one_run_changes_its_holder_and_nothing_else(storage: Storage) -> None:
    queued = await accepted(storage, a_run())
    run = await storage.runs.claim_run("ada", queued.run_id, "api", lease_ms=LEASE_MS)
    assert run is not None
    assert run == replace(queued, epoch=1, worker_id="api", lease_expire_time=run.lease_expire_time)
    assert run.lease_expire_time is not None


async def test_a_held_run_is_not_claimed_singly(storage: Storage) -> None:
    run = await working(storage, a_run())
    assert await storage.runs.claim_run("ada", run.run_id, "api", lease_ms=LEASE_MS) is None
    assert await storage.runs.get("ada", run.run_id) == run


async def test_an_abandoned_run_is_claimed_singly(storage: Storage) -> None:
    queued = await accepted(storage, a_run())
    await storage.runs.claim("w1", lease_ms=NO_LEASE_MS, limit=1)
    run = await storage.runs.claim_run("ada", queued.run_id, "api", lease_ms=LEASE_MS)
    assert run is not None
    assert (run.epoch, run.attempt, run.claims, run.status) == (2, 1, 1, RunStatus.RUNNING)


async def test_an_ended_run_is_not_claimed(storage: Storage) -> None:
    run = await working(storage, a_run())
    await storage.events.append([an_ending(run)])
    assert await storage.runs.claim_run("ada", run.run_id, "api", lease_ms=LEASE_MS) is None
    assert await claim_ids(storage) == []


@pytest.mark.parametrize("user_id", ["bob", "ada"])
async def test_claiming_an_unknown_run(storage: Storage, user_id: str) -> None:
    run = await accepted(storage, a_run("ada"))
    run_id = run.run_id if user_id == "bob" else new_id()
    with pytest.raises(RecordNotFoundError):
        await storage.runs.claim_run(user_id, run_id, "api", lease_ms=LEASE_MS)
    assert (await storage.runs.get("ada", run.run_id)).epoch == 0


async def test_a_beat_tells_what_is_held_in_order(storage: Storage) -> None:
    held = await working(storage, a_run(), "w1")
    cancelled = await working(storage, a_run(), "w1")
    await storage.runs.request_cancel("ada", cancelled.run_id, "stop")
    others = await working(storage, a_run(), "w2")
    ended = await working(storage, a_run(), "w1")
    await storage.events.append([an_ending(ended)])
    unknown = new_id()
    epochs = {unknown: 1, cancelled.run_id: 1, ended.run_id: 1, others.run_id: 1, held.run_id: 1}
    assert list(await storage.runs.beat("w1", epochs, lease_ms=LEASE_MS)) == [
        Beat(unknown, held=False, cancel_reason=None),
        Beat(cancelled.run_id, held=True, cancel_reason="stop"),
        Beat(ended.run_id, held=False, cancel_reason=None),
        Beat(others.run_id, held=False, cancel_reason=None),
        Beat(held.run_id, held=True, cancel_reason=None),
    ]
    assert await storage.runs.get("ada", others.run_id) == others


async def test_a_beat_under_an_old_epoch_renews_nothing(storage: Storage) -> None:
    await accepted(storage, a_run())
    await storage.runs.claim("w1", lease_ms=NO_LEASE_MS, limit=1)
    (run,) = await storage.runs.claim("w1", lease_ms=LEASE_MS, limit=1)
    (beat,) = await storage.runs.beat("w1", {run.run_id: 1}, lease_ms=LEASE_MS * 9)
    assert not beat.held
    assert await storage.runs.get("ada", run.run_id) == run


async def test_a_beat_renews_the_lease(storage: Storage) -> None:
    await accepted(storage, a_run())
    (run,) = await storage.runs.claim("w1", lease_ms=NO_LEASE_MS, limit=1)
    await storage.runs.beat("w1", {run.run_id: 1}, lease_ms=LEASE_MS)
    assert await claim_ids(storage) == []
    renewed = await storage.runs.get("ada", run.run_id)
    assert run.lease_expire_time is not None
    assert renewed.lease_expire_time is not None
    assert renewed.lease_expire_time > run.lease_expire_time


async def test_a_beat_for_nothing(storage: Storage) -> None:
    assert list(await storage.runs.beat("w1", {}, lease_ms=LEASE_MS)) == []


async def test_a_release_is_refused_under_another_epoch(storage: Storage) -> None:
    run = await working(storage, a_run())
    assert not await storage.runs.release(run.run_id, run.epoch + 1)
    assert await storage.runs.get("ada", run.run_id) == run
    assert not await storage.runs.release(new_id(), 1)


async def test_a_release_is_refused_after_the_end(storage: Storage) -> None:
    run = await working(storage, a_run())
    await storage.events.append([an_ending(run)])
    assert not await storage.runs.release(run.run_id, run.epoch)


async def test_a_release_can_be_repeated(storage: Storage) -> None:
    run = await working(storage, a_run())
    assert await storage.runs.release(run.run_id, run.epoch)
    assert await storage.runs.release(run.run_id, run.epoch)
    released = await storage.runs.get("ada", run.run_id)
    assert (released.worker_id, released.lease_expire_time, released.claims) == (None, None, 0)


async def test_the_releaser_is_fenced_once_another_has_claimed(storage: Storage) -> None:
    run = await working(storage, a_run())
    await storage.runs.release(run.run_id, run.epoch)
    await claim_ids(storage)
    assert not await storage.runs.release(run.run_id, run.epoch)
    assert list(await storage.events.append([an_append(run, b"late")])) == [AppendOutcome.FENCED]


async def test_release_all_frees_every_open_run(storage: Storage) -> None:
    await accepted(storage, a_run("ada"))
    await claim_ids(storage)
    await working(storage, a_run("bob"))
    await accepted(storage, a_run("eve"))
    ended = await working(storage, a_run("ada"))
    await storage.events.append([an_ending(ended)])
    assert await storage.runs.release_all() == 2
    again = await storage.runs.claim("w2", lease_ms=LEASE_MS, limit=9)
    assert sorted((run.user_id, run.epoch, run.attempt, run.claims) for run in again) == [
        ("ada", 2, 2, 2),
        ("bob", 2, 1, 1),
        ("eve", 1, 1, 1),
    ]


async def test_a_checkpoint_resets_the_claims(storage: Storage) -> None:
    await accepted(storage, a_run())
    await claim_ids(storage, lease_ms=NO_LEASE_MS)
    (run,) = await storage.runs.claim("w1", lease_ms=LEASE_MS, limit=1)
    await storage.events.append([an_append(run, b"step")])
    assert (await storage.runs.get("ada", run.run_id)).claims == 2
    run = replace(run, last_seq=2)
    await storage.events.append([replace(an_append(run, b"saved"), checkpoint=Checkpoint(3, 1, b"state"))])
    assert (await storage.runs.get("ada", run.run_id)).claims == 0


async def test_the_first_cancel_reason_stays(storage: Storage) -> None:
    run = await accepted(storage, a_run())
    asked = await storage.runs.request_cancel("ada", run.run_id, "first")
    assert asked == replace(run, cancel_reason="first")
    assert await storage.runs.request_cancel("ada", run.run_id, "second") == asked


async def test_an_ended_run_is_not_cancelled(storage: Storage) -> None:
    run = await working(storage, a_run())
    await storage.events.append([an_ending(run)])
    ended = await storage.runs.get("ada", run.run_id)
    assert await storage.runs.request_cancel("ada", run.run_id, "late") == ended
    assert ended.cancel_reason is None


async def test_somebody_elses_run_is_not_cancelled(storage: Storage) -> None:
    run = await accepted(storage, a_run("ada"))
    with pytest.raises(RecordNotFoundError):
        await storage.runs.request_cancel("bob", run.run_id, "mine")
    assert await storage.runs.get("ada", run.run_id) == run


async def test_leases_end_with_the_clock_that_is_handed_in() -> None:
    clock = ManualClock()
    storage = MemoryStorage(clock.now)
    await accepted(storage, a_run())
    assert len(await claim_ids(storage, lease_ms=6_000)) == 1
    clock.advance(5.999)
    assert await claim_ids(storage) == []
    clock.advance(0.001)
    assert len(await claim_ids(storage)) == 1


async def test_leases_are_measured_by_the_databases_clock(database_url: str, data_dir: Path) -> None:
    storage = await open_storage(database_url, data_dir)
    before = datetime.now(UTC) - timedelta(seconds=1)
    run = await working(storage, a_run())
    lease = timedelta(milliseconds=LEASE_MS)
    assert run.lease_expire_time is not None
    assert before < run.lease_expire_time - lease < datetime.now(UTC) + timedelta(seconds=1)
    await storage.close()
