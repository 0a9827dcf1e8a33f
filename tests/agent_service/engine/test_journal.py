import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.engine.errors import FencedError
from agent_service.engine.journal import (
    MAX_COMMIT_EVENTS,
    MAX_PENDING_BYTES,
    MAX_PENDING_EVENTS,
    RETRY_DELAYS_MS,
    Journal,
    RunWriter,
)
from storage.errors import StorageUnavailableError
from storage.memory import MemoryEventLog, MemoryStorage
from storage.memory_state import MemoryState
from storage.records import Append, AppendOutcome, Checkpoint, Ending, RunRecord, RunStatus, StoredEvent
from tests.support.faulty_log import Fault, FaultyEventLog, PoisonError
from tests.support.gates import is_stuck, settle
from tests.support.storage import NO_LEASE_MS, START, ManualClock, a_run, an_append, working

NO_WAIT = (0,) * len(RETRY_DELAYS_MS)


class Desk:
    """A journal over a log that can fail, and all that it delivered."""

    def __init__(self, storage: MemoryStorage) -> None:
        self.storage = storage
        self.log = FaultyEventLog(storage.events)
        self.delivered: dict[str, list[int]] = {}
        self.too_early: list[int] = []
        self.refuses_delivery = False
        self.journal = Journal(self.log, self._deliver, retry_delays_ms=NO_WAIT)

    def _deliver(self, run_id: str, events: Sequence[StoredEvent]) -> None:
        if self.refuses_delivery:
            raise RuntimeError("the watchers are broken")
        for event in events:
            if event.seq > self.log.committed.get(run_id, 0):
                # Noted, not raised: the journal lets no error of a delivery through.
                self.too_early.append(event.seq)
            self.delivered.setdefault(run_id, []).append(event.seq)

    async def open(self, run: RunRecord | None = None) -> RunWriter:
        """Return the writer of a run that this process has just claimed."""
        return self.journal.open_run(run or await working(self.storage, a_run()))

    async def stored(self, run_id: str) -> list[int]:
        """Return the seqs in the log."""
        page = await self.storage.events.read("ada", run_id, 0, max_events=100_000, max_bytes=1 << 30)
        return [event.seq for event in page]


def write(writer: RunWriter, count: int = 1, *, size: int = 1, ending: Ending | None = None) -> None:
    """Append the next events of the run; the last one carries the ending."""
    for number in range(count, 0, -1):
        event = StoredEvent(writer.run_id, writer.appended_seq + 1, b"x" * size, terminal=bool(ending and number == 1))
        writer.append(event, ending=ending if number == 1 else None)


@asynccontextmanager
async def opened_desk() -> AsyncIterator[Desk]:
    desk = Desk(MemoryStorage(ManualClock().now))
    desk.journal.start()
    try:
        yield desk
    finally:
        desk.log.appends.open()
        await desk.journal.close()
    assert desk.too_early == [], "delivered before it was committed"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with opened_desk() as desk:
        yield desk


async def lose(desk: Desk, writer: RunWriter) -> RunRecord:
    """Let another worker claim the writer's run."""
    await desk.storage.runs.release(writer.run_id, writer.epoch)
    claimed = await desk.storage.runs.claim_run("ada", writer.run_id, "other", lease_ms=NO_LEASE_MS)
    assert claimed is not None
    return claimed


async def test_events_are_delivered_once_in_order_and_flush_means_committed(desk: Desk) -> None:
    writers = [await desk.open() for _ in range(3)]
    for _ in range(5):
        for writer in writers:
            write(writer)
        await asyncio.sleep(0)
    for writer in writers:
        await writer.flush()
        assert await desk.stored(writer.run_id) == [1, 2, 3, 4, 5, 6]
        assert desk.delivered[writer.run_id] == [2, 3, 4, 5, 6]


async def test_what_comes_while_a_commit_is_under_way_shares_the_next_one(desk: Desk) -> None:
    one, two, three = [await desk.open() for _ in range(3)]
    desk.log.appends.close()
    write(one)
    await desk.log.appends.reached(1)
    write(one, 2)
    write(two)
    write(three)
    desk.log.appends.open()
    await asyncio.gather(one.flush(), two.flush(), three.flush())
    shared = {append.run_id: len(append.events) for append in desk.log.calls[1]}
    assert shared == {one.run_id: 2, two.run_id: 1, three.run_id: 1}
    assert len(desk.log.calls) == 2


async def test_an_event_alone_is_not_held_back_to_fill_a_batch(desk: Desk) -> None:
    writer = await desk.open()
    write(writer)
    await settle()
    assert desk.delivered[writer.run_id] == [2]


async def test_nothing_is_delivered_and_no_flush_returns_before_the_commit(desk: Desk) -> None:
    writer = await desk.open()
    desk.log.appends.close()
    write(writer)
    flush = asyncio.create_task(writer.flush())
    assert await is_stuck(flush)
    assert not desk.delivered
    desk.log.appends.open()
    await flush
    assert desk.delivered[writer.run_id] == [2]


@pytest.mark.parametrize(
    ("before", "last"),
    [
        ([1] * (MAX_PENDING_EVENTS - 1), 1),
        ([MAX_PENDING_BYTES // 2, MAX_PENDING_BYTES // 2 - 1], 1),
        ([], MAX_PENDING_BYTES),
        ([], 2 * MAX_PENDING_BYTES),
    ],
    ids=["events", "bytes", "one event of that size", "one larger event"],
)
async def test_a_producer_waits_exactly_at_the_bound(desk: Desk, before: Sequence[int], last: int) -> None:
    writer = await desk.open()
    desk.log.appends.close()
    write(writer)
    await desk.log.appends.reached(1)
    for size in before:
        write(writer, size=size)
    await asyncio.wait_for(writer.room(), 1)
    write(writer, size=last)
    room = asyncio.create_task(writer.room())
    assert await is_stuck(room)
    desk.log.appends.open()
    await room


async def test_a_transaction_holds_no_more_events_than_its_bound(desk: Desk) -> None:
    blocker = await desk.open()
    desk.log.appends.close()
    write(blocker)
    await desk.log.appends.reached(1)
    writers = [await desk.open() for _ in range(MAX_COMMIT_EVENTS // MAX_PENDING_EVENTS + 1)]
    for writer in writers:
        write(writer, MAX_PENDING_EVENTS)
    desk.log.appends.open()
    await asyncio.gather(*(writer.flush() for writer in writers))
    sizes = [sum(len(append.events) for append in call) for call in desk.log.calls]
    assert sizes == [1, MAX_COMMIT_EVENTS, MAX_PENDING_EVENTS]


async def test_a_fenced_run_stops_alone(desk: Desk) -> None:
    fenced, other = await desk.open(), await desk.open()
    await lose(desk, fenced)
    write(fenced)
    write(other)
    await other.flush()
    with pytest.raises(FencedError):
        await fenced.flush()
    with pytest.raises(FencedError):
        await fenced.room()
    with pytest.raises(FencedError):
        write(fenced)
    assert desk.delivered == {other.run_id: [2]}
    assert await desk.stored(fenced.run_id) == [1]


async def test_a_producer_that_waits_for_room_hears_that_it_is_fenced(desk: Desk) -> None:
    writer = await desk.open()
    await lose(desk, writer)
    desk.log.appends.close()
    write(writer)
    await desk.log.appends.reached(1)
    write(writer, MAX_PENDING_EVENTS)
    room, flush = asyncio.create_task(writer.room()), asyncio.create_task(writer.flush())
    assert await is_stuck(room)
    desk.log.appends.open()
    for waiting in (room, flush):
        with pytest.raises(FencedError):
            await waiting


async def test_an_heir_in_the_same_process_is_not_held_up_by_the_fenced_writer(desk: Desk) -> None:
    blocker, old = await desk.open(), await desk.open()
    desk.log.appends.close()
    write(blocker)
    await desk.log.appends.reached(1)
    heir = await desk.open(await lose(desk, old))
    write(old)
    write(heir)
    write(old)
    desk.log.appends.open()
    await asyncio.wait_for(heir.flush(), 5)
    with pytest.raises(FencedError):
        await asyncio.wait_for(old.flush(), 5)
    assert desk.delivered[heir.run_id] == [2]


async def test_poisoned_events_hurt_their_run_alone(desk: Desk) -> None:
    first, poisoned, last = [await desk.open() for _ in range(3)]
    desk.log.poisoned.add(poisoned.run_id)
    for writer in (first, poisoned, last):
        write(writer, 2)
    await asyncio.gather(first.flush(), last.flush())
    with pytest.raises(PoisonError):
        await poisoned.flush()
    assert desk.delivered == {first.run_id: [2, 3], last.run_id: [2, 3]}
    write(first)
    await first.flush()


async def test_a_defect_after_a_lost_answer_neither_repeats_nor_fences(desk: Desk) -> None:
    one, two = await desk.open(), await desk.open()
    desk.log.faults.append(Fault.LOST_AFTER_COMMIT)
    desk.log.position_faults.append(Fault.DEFECT)
    write(one, 2)
    write(two, 2)
    await asyncio.gather(one.flush(), two.flush())
    assert desk.delivered == {one.run_id: [2, 3], two.run_id: [2, 3]}
    assert await desk.stored(one.run_id) == await desk.stored(two.run_id) == [1, 2, 3]


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.LOST_AFTER_COMMIT, Fault.LOST_BEFORE_COMMIT])
@pytest.mark.parametrize("times", [1, len(RETRY_DELAYS_MS)])
async def test_a_database_that_comes_back_leaves_neither_gap_nor_repeat(desk: Desk, fault: Fault, times: int) -> None:
    writer = await desk.open()
    desk.log.faults.extend([fault] * times)
    write(writer, 3)
    await writer.flush()
    assert await desk.stored(writer.run_id) == [1, 2, 3, 4]
    assert desk.delivered[writer.run_id] == [2, 3, 4]


async def test_a_database_that_stays_away_is_told_to_its_runs_and_not_to_later_ones(desk: Desk) -> None:
    writer = await desk.open()
    desk.log.faults.extend([Fault.AWAY] * (len(RETRY_DELAYS_MS) + 1))
    write(writer)
    with pytest.raises(StorageUnavailableError):
        await writer.flush()
    with pytest.raises(StorageUnavailableError):
        await writer.room()
    later = await desk.open()
    write(later)
    await later.flush()
    assert desk.delivered == {later.run_id: [2]}


async def test_an_ending_whose_answer_is_lost_has_happened(desk: Desk) -> None:
    writer = await desk.open()
    desk.log.faults.append(Fault.LOST_AFTER_COMMIT)
    write(writer, 2, ending=Ending(RunStatus.CANCELLED, START))
    await writer.flush()
    assert (await desk.storage.runs.get("ada", writer.run_id)).status is RunStatus.CANCELLED
    assert desk.delivered[writer.run_id] == [2, 3]


async def test_a_run_that_was_taken_while_the_answer_was_lost_is_fenced(desk: Desk) -> None:
    writer = await desk.open()
    desk.log.faults.append(Fault.LOST_BEFORE_COMMIT)
    desk.log.appends.close()
    write(writer)
    await desk.log.appends.reached(1)
    await lose(desk, writer)
    desk.log.appends.open()
    with pytest.raises(FencedError):
        await writer.flush()
    assert await desk.stored(writer.run_id) == [1]


async def test_what_its_heir_has_written_is_not_taken_for_its_own(desk: Desk) -> None:
    writer = await desk.open()
    desk.log.faults.append(Fault.LOST_BEFORE_COMMIT)
    desk.log.appends.close()
    write(writer)
    await desk.log.appends.reached(1)
    heir = await lose(desk, writer)
    await desk.storage.events.append([an_append(heir, b"two", b"three")])
    desk.log.appends.open()
    with pytest.raises(FencedError):
        await writer.flush()
    assert not desk.delivered


@settings(max_examples=60)
@given(
    # Together no more than there are retries: a database that stays away has a test of its own.
    faults=st.lists(st.sampled_from(list(Fault)), max_size=len(RETRY_DELAYS_MS) - 3),
    position_faults=st.lists(st.sampled_from([Fault.NONE, Fault.AWAY, Fault.DEFECT]), max_size=3),
    pieces=st.lists(st.integers(0, 3), min_size=3, max_size=12),
)
def test_whatever_the_database_does_each_event_is_there_and_delivered_once(
    faults: list[Fault], position_faults: list[Fault], pieces: list[int]
) -> None:
    async def scenario() -> None:
        async with opened_desk() as desk:
            writers = [await desk.open() for _ in range(3)]
            desk.log.faults.extend(faults)
            desk.log.position_faults.extend(position_faults)
            for number, count in enumerate(pieces):
                writer = writers[number % 3]
                # A defect that meets a run alone ends it for this worker: then the log stays as it is.
                try:
                    write(writer, count)
                except PoisonError:
                    continue
                await asyncio.sleep(0)
            results = await asyncio.gather(*(writer.flush() for writer in writers), return_exceptions=True)
            for writer, result in zip(writers, results, strict=True):
                stored = await desk.stored(writer.run_id)
                assert stored == list(range(1, len(stored) + 1))
                assert result is None or isinstance(result, PoisonError)
                if result is None:
                    assert len(stored) == writer.appended_seq
                assert (
                    desk.delivered.get(writer.run_id, []) == stored[1 : 1 + len(desk.delivered.get(writer.run_id, []))]
                )
                if result is None:
                    assert desk.delivered.get(writer.run_id, []) == stored[1:]

    asyncio.run(scenario())


async def test_a_checkpoint_and_an_ending_come_with_their_event(desk: Desk) -> None:
    writer = await desk.open()
    writer.append(StoredEvent(writer.run_id, 2, b"x"), checkpoint=Checkpoint(2, 1, b"old"))
    writer.append(StoredEvent(writer.run_id, 3, b"x"), checkpoint=Checkpoint(3, 1, b"new"))
    write(writer)
    await writer.flush()
    assert await desk.storage.events.checkpoint(writer.run_id) == Checkpoint(3, 1, b"new")
    write(writer, ending=Ending(RunStatus.FAILED, START, error_reason="INTERNAL"))
    await writer.flush()
    assert (await desk.storage.runs.get("ada", writer.run_id)).error_reason == "INTERNAL"


async def test_broken_delivery_stops_nobody(desk: Desk) -> None:
    writer = await desk.open()
    desk.refuses_delivery = True
    write(writer)
    await writer.flush()
    desk.refuses_delivery = False
    write(writer)
    await writer.flush()
    assert await desk.stored(writer.run_id) == [1, 2, 3]
    assert desk.delivered[writer.run_id] == [3]


async def test_a_flush_that_is_cancelled_disturbs_no_other(desk: Desk) -> None:
    writer = await desk.open()
    desk.log.appends.close()
    write(writer)
    given_up, patient = asyncio.create_task(writer.flush()), asyncio.create_task(writer.flush())
    await desk.log.appends.reached(1)
    given_up.cancel()
    await settle()
    desk.log.appends.open()
    await patient
    assert given_up.cancelled()


async def test_close_commits_what_is_pending_and_then_refuses() -> None:
    desk = Desk(MemoryStorage(ManualClock().now))
    desk.journal.start()
    writer = await desk.open()
    write(writer, 3)
    await desk.journal.close()
    assert desk.delivered[writer.run_id] == [2, 3, 4]
    write(writer)
    with pytest.raises(StorageUnavailableError):
        await asyncio.wait_for(writer.flush(), 5)


class LateLog(MemoryEventLog):
    """A log whose first append is carried out only after the log was asked about it, when the next one comes."""

    def __init__(self, state: MemoryState) -> None:
        super().__init__(state)
        self._late: Sequence[Append] | None = None
        self._is_first = True

    async def append(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        if self._is_first:
            self._is_first, self._late = False, appends
            raise StorageUnavailableError("the line broke", outcome_unknown=True)
        if self._late is not None:
            late, self._late = self._late, None
            await super().append(late)
        return await super().append(appends)


async def test_what_was_carried_out_late_is_not_taken_for_a_fence() -> None:
    storage = MemoryStorage(ManualClock().now)
    run = await working(storage, a_run())
    delivered: list[int] = []
    log = LateLog(storage.state)
    journal = Journal(log, lambda _, events: delivered.extend(event.seq for event in events), retry_delays_ms=NO_WAIT)
    journal.start()
    writer = journal.open_run(run)
    write(writer, 2)
    await writer.flush()
    assert delivered == [2, 3]
    write(writer)
    await writer.flush()
    assert delivered == [2, 3, 4]
    await journal.close()
