"""What the event log promises, on every storage."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace

import asyncpg
import pytest

from storage.errors import RecordNotFoundError
from storage.interfaces import Storage
from storage.records import (
    Append,
    AppendOutcome,
    Checkpoint,
    Ending,
    MessageRole,
    Position,
    RunRecord,
    RunStatus,
    StoredEvent,
    ThreadConflict,
)
from tests.support.storage import (
    LEASE_MS,
    NO_LEASE_MS,
    a_run,
    accepted,
    an_append,
    an_ending,
    at,
    events,
    new_id,
    working,
)

APPENDED, FENCED = AppendOutcome.APPENDED, AppendOutcome.FENCED


async def read_all(storage: Storage, run: RunRecord, after_seq: int = 0) -> list[bytes]:
    read = await storage.events.read(run.user_id, run.run_id, after_seq, max_events=10_000, max_bytes=1 << 30)
    assert [event.seq for event in read] == list(range(after_seq + 1, after_seq + 1 + len(read)))
    return [event.data for event in read]


async def test_what_is_appended_is_read_byte_for_byte(storage: Storage) -> None:
    run = await working(storage, a_run())
    data = (b"", b"\x00\xff", bytes(range(256)) * 2048)
    assert list(await storage.events.append([an_append(run, *data)])) == [APPENDED]
    assert await read_all(storage, run) == [b"started", *data]
    assert (await storage.runs.get("ada", run.run_id)).last_seq == 4


async def test_appends_of_many_runs_have_their_own_outcomes_in_order(storage: Storage) -> None:
    runs = [await working(storage, a_run(f"user{number % 3}")) for number in range(7)]
    wrong_epoch = replace(an_append(runs[1], b"x"), epoch=2)
    wrong_seq = Append(runs[3].run_id, 1, 2, events(runs[3], 2, b"x"))
    unknown = replace(runs[0], run_id=new_id())
    appends = [
        an_append(runs[0], b"a", b"b"),
        wrong_epoch,
        an_append(runs[2], b"c"),
        wrong_seq,
        an_append(unknown, b"x"),
        an_append(runs[5], b"d"),
    ]
    outcomes = await storage.events.append(appends)
    assert list(outcomes) == [APPENDED, FENCED, APPENDED, FENCED, FENCED, APPENDED]
    logs = [(await read_all(storage, run))[1:] for run in runs]
    assert logs == [[b"a", b"b"], [], [b"c"], [], [], [b"d"], []]


async def test_nothing_to_append(storage: Storage) -> None:
    assert list(await storage.events.append([])) == []


async def test_an_append_after_the_end_is_fenced(storage: Storage) -> None:
    run = await working(storage, a_run())
    assert list(await storage.events.append([an_ending(run)])) == [APPENDED]
    ended = replace(run, last_seq=2)
    assert list(await storage.events.append([an_append(ended, b"late")])) == [FENCED]
    assert await read_all(storage, run) == [b"started", b"completed"]


async def test_a_fenced_append_writes_nothing_at_all(storage: Storage) -> None:
    run = await working(storage, a_run())
    late = replace(
        an_ending(run),
        epoch=run.epoch + 1,
        checkpoint=Checkpoint(2, 1, b"late"),
    )
    assert list(await storage.events.append([late])) == [FENCED]
    assert await storage.runs.get("ada", run.run_id) == run
    assert await storage.events.checkpoint(run.run_id) is None
    assert len((await storage.threads.list_messages("ada", run.thread_id, page_size=9)).items) == 1
    assert (await storage.threads.get("ada", run.thread_id)).update_time == at(0)


async def test_the_earlier_worker_is_fenced_by_a_claim(storage: Storage) -> None:
    await accepted(storage, a_run())
    (earlier,) = await storage.runs.claim("w1", lease_ms=NO_LEASE_MS, limit=1)
    (later,) = await storage.runs.claim("w2", lease_ms=LEASE_MS, limit=1)
    assert list(await storage.events.append([an_append(earlier, b"old")])) == [FENCED]
    assert list(await storage.events.append([an_append(later, b"new")])) == [APPENDED]
    assert await read_all(storage, later) == [b"started", b"new"]


async def test_of_racing_writers_one_wins(storage: Storage) -> None:
    run = await working(storage, a_run())
    racing = (storage.events.append([an_append(run, bytes([number]))]) for number in range(8))
    outcomes = [outcome for (outcome,) in await asyncio.gather(*racing)]
    assert sorted(outcomes) == [APPENDED] + [FENCED] * 7
    assert await read_all(storage, run) == [b"started", bytes([outcomes.index(APPENDED)])]


async def test_an_ending_ends_the_run(storage: Storage) -> None:
    run = await working(storage, a_run())
    last = an_ending(run, at_s=42, answer="**Much.**")
    await storage.events.append([last])
    ended = await storage.runs.get("ada", run.run_id)
    assert ended == replace(
        run, status=RunStatus.COMPLETED, last_seq=2, end_time=at(42), worker_id=None, lease_expire_time=None
    )
    assert (await storage.threads.get("ada", run.thread_id)).update_time == at(42)
    messages = (await storage.threads.list_messages("ada", run.thread_id, page_size=9)).items
    assert last.ending is not None
    assert messages[1] == last.ending.message
    assert [message.role for message in messages] == [MessageRole.USER, MessageRole.ASSISTANT]
    (terminal,) = await storage.events.read("ada", run.run_id, 1, max_events=9, max_bytes=999)
    assert terminal == StoredEvent(run.run_id, 2, b"completed", terminal=True)


@pytest.mark.parametrize("storage", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
async def test_an_ending_that_cannot_be_saved_saves_nothing(storage: Storage) -> None:
    run = await working(storage, a_run())
    last = an_ending(run)
    assert last.ending is not None
    assert last.ending.message is not None
    taken = replace(last.ending.message, message_id=run.user_message_id)
    with pytest.raises((sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError)):
        await storage.events.append([replace(last, ending=replace(last.ending, message=taken))])
    assert await storage.runs.get("ada", run.run_id) == run
    assert await read_all(storage, run) == [b"started"]
    assert (await storage.threads.get("ada", run.thread_id)).update_time == at(0)


async def test_a_failure_keeps_its_reason(storage: Storage) -> None:
    run = await working(storage, a_run())
    ending = Ending(RunStatus.FAILED, at(1), error_reason="TOOL_FAILED")
    await storage.events.append([replace(an_append(run, b"error"), ending=ending)])
    failed = await storage.runs.get("ada", run.run_id)
    assert (failed.status, failed.error_reason) == (RunStatus.FAILED, "TOOL_FAILED")
    assert len((await storage.threads.list_messages("ada", run.thread_id, page_size=9)).items) == 1


async def test_many_runs_end_in_one_call(storage: Storage) -> None:
    runs = [await working(storage, a_run()) for _ in range(4)]
    await storage.events.append([an_ending(run, at_s=number) for number, run in enumerate(runs)])
    for number, run in enumerate(runs):
        assert (await storage.runs.get("ada", run.run_id)).end_time == at(number)
        assert (await storage.threads.get("ada", run.thread_id)).update_time == at(number)


async def test_the_newest_checkpoint_is_kept(storage: Storage) -> None:
    run = await working(storage, a_run())
    assert await storage.events.checkpoint(run.run_id) is None
    for seq in (2, 3):
        checkpoint = Checkpoint(seq, 7, b"state\x00%d" % seq)
        await storage.events.append([replace(an_append(run, b"step"), checkpoint=checkpoint)])
        run = replace(run, last_seq=seq)
        assert await storage.events.checkpoint(run.run_id) == checkpoint
    await storage.events.append([an_append(run, b"step")])
    assert await storage.events.checkpoint(run.run_id) == Checkpoint(3, 7, b"state\x003")


async def test_a_checkpoint_without_events_is_fenced_all_the_same(storage: Storage) -> None:
    run = await working(storage, a_run())
    alone = replace(an_append(run), checkpoint=Checkpoint(1, 1, b"alone"))
    assert list(await storage.events.append([replace(alone, epoch=9)])) == [FENCED]
    assert list(await storage.events.append([alone])) == [APPENDED]
    assert await storage.events.checkpoint(run.run_id) == Checkpoint(1, 1, b"alone")
    assert (await storage.runs.get("ada", run.run_id)).last_seq == 1


BROKEN: dict[str, Callable[[RunRecord], list[Append]]] = {
    "twice one run": lambda run: [an_append(run, b"a"), an_append(run, b"b")],
    "a gap": lambda run: [replace(an_append(run), events=events(run, 2, b"a"))],
    "a repeat": lambda run: [replace(an_append(run), events=(*events(run, 1, b"a"), *events(run, 1, b"b")))],
    "another run's event": lambda run: [replace(an_append(run), events=(StoredEvent(new_id(), 2, b"a"),))],
    "more after the end": lambda run: [
        replace(an_append(run), events=(StoredEvent(run.run_id, 2, b"a", terminal=True), *events(run, 2, b"b")))
    ],
    "an end that is none": lambda run: [replace(an_append(run, b"a"), ending=Ending(RunStatus.RUNNING, at(0)))],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_broken_append_is_a_defect(storage: Storage, broken: Callable[[RunRecord], list[Append]]) -> None:
    run = await working(storage, a_run())
    fine = await working(storage, a_run())
    with pytest.raises(ValueError, match="run"):
        await storage.events.append([an_append(fine, b"a"), *broken(run)])
    assert await read_all(storage, run) == [b"started"]
    assert await read_all(storage, fine) == [b"started"]


async def test_reading_goes_on_after_the_cursor(storage: Storage) -> None:
    run = await working(storage, a_run())
    await storage.events.append([an_append(run, b"2", b"3", b"4")])
    assert await read_all(storage, run, 2) == [b"3", b"4"]
    assert await read_all(storage, run, 4) == []
    assert await read_all(storage, run, 99) == []


@pytest.mark.parametrize(
    ("max_events", "max_bytes", "expected"),
    [
        (1, 1000, 1),
        (2, 1000, 2),
        (9, 1000, 5),
        (9, 50, 5),
        (9, 49, 4),
        (9, 10, 1),
        (9, 9, 1),
        (9, 20, 2),
        (3, 20, 2),
        (9, 0, 1),
    ],
)
async def test_a_read_keeps_both_limits_but_returns_at_least_one(
    storage: Storage, max_events: int, max_bytes: int, expected: int
) -> None:
    run = await working(storage, a_run())
    await storage.events.append([an_append(run, *[bytes(10)] * 5)])
    read = await storage.events.read("ada", run.run_id, 1, max_events=max_events, max_bytes=max_bytes)
    assert [event.seq for event in read] == list(range(2, 2 + expected))


async def test_somebody_elses_log_is_unknown(storage: Storage) -> None:
    run = await accepted(storage, a_run("ada"))
    for user_id, run_id in (("bob", run.run_id), ("ada", new_id())):
        with pytest.raises(RecordNotFoundError):
            await storage.events.read(user_id, run_id, 0, max_events=9, max_bytes=9)


async def test_positions(storage: Storage) -> None:
    queued = await accepted(storage, a_run())
    run = await working(storage, a_run("bob"))
    await storage.events.append([an_append(run, b"2", b"3")])
    ended = await working(storage, a_run("bob"))
    await storage.events.append([an_ending(ended)])
    found = await storage.events.positions([run.run_id, queued.run_id, new_id(), ended.run_id])
    assert found == {
        queued.run_id: Position(0, 1, RunStatus.QUEUED),
        run.run_id: Position(1, 3, RunStatus.QUEUED),
        ended.run_id: Position(1, 2, RunStatus.COMPLETED),
    }
    assert await storage.events.positions([run.run_id, queued.run_id, ended.run_id], final=False) == found
    assert await storage.events.positions([]) == {}


async def test_a_reader_beside_a_writer_sees_every_event_once_in_order(storage: Storage) -> None:
    run = await working(storage, a_run())
    total = 400

    async def write() -> None:
        for seq in range(1, total, 3):
            append = an_append(replace(run, last_seq=seq), *[b"%d" % (seq + step) for step in (1, 2, 3)])
            assert list(await storage.events.append([append])) == [APPENDED]

    async def read() -> list[bytes]:
        seen: list[bytes] = []
        while len(seen) < total:
            page = await storage.events.read("ada", run.run_id, len(seen), max_events=7, max_bytes=1000)
            assert [event.seq for event in page] == list(range(len(seen) + 1, len(seen) + 1 + len(page)))
            seen += [event.data for event in page]
            # Memory answers without a pause: let the writer go on.
            await asyncio.sleep(0)
        return seen

    _, first, second = await asyncio.gather(write(), read(), read())
    assert first == second == [b"started", *[b"%d" % seq for seq in range(2, total + 1)]]


async def test_writers_with_runs_in_common_never_block_each_other_for_good(storage: Storage) -> None:
    runs = [await working(storage, a_run("ada")) for _ in range(6)]

    async def write(number: int) -> None:
        order = runs if number % 2 else runs[::-1]
        for _ in range(4):
            positions = await storage.events.positions([run.run_id for run in order])
            await storage.events.append(
                [an_append(replace(run, last_seq=positions[run.run_id].last_seq), b"x") for run in order]
            )

    async def beat() -> None:
        for _ in range(8):
            await storage.runs.beat("w1", {run.run_id: 1 for run in runs}, lease_ms=LEASE_MS)

    async def accept() -> None:
        for run in runs:
            await storage.runs.accept(replace(a_run("ada", thread_id=run.thread_id), conflict=ThreadConflict.INTERRUPT))

    await asyncio.gather(*(write(number) for number in range(4)), beat(), accept())
    ended = [await storage.runs.get("ada", run.run_id) for run in runs]
    await asyncio.gather(
        *(storage.events.append([an_ending(run) for run in ended[::step]]) for step in (1, -1)), beat()
    )
    for run in ended:
        assert (await storage.runs.get("ada", run.run_id)).status is RunStatus.COMPLETED
