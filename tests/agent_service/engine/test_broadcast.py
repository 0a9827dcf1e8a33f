"""Delivery: replay, then live, each event once, and nobody slowed down by anybody."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.engine.broadcast import (
    MAX_THREAD_CHANGES,
    MAX_WATCH_BYTES,
    MAX_WATCH_EVENTS,
    REPLAY_BYTES,
    REPLAY_EVENTS,
    Broadcast,
    ThreadChange,
    ThreadChangeKind,
    Watch,
)
from agent_service.engine.errors import ApexError, ErrorReason
from storage.memory import MemoryStorage
from storage.records import Append, AppendOutcome, Ending, RunRecord, RunStatus, StoredEvent, ThreadRecord
from tests.support.cuttable_storage import CuttableStorage
from tests.support.faulty_log import Fault
from tests.support.gates import is_stuck, settle
from tests.support.storage import START, a_run, working
from tests.support.workshop import BOB, user

ADA = user("ada")
POLL_MS = 1


class Stage:
    """A run whose log grows as the test says, in this process or in another one."""

    def __init__(self, storage: CuttableStorage, inner: MemoryStorage, run: RunRecord) -> None:
        self.storage = storage
        self.broadcast = Broadcast(storage.events, storage.runs, poll_interval_ms=POLL_MS)
        self.run = run
        self.last_seq = run.last_seq
        self._inner = inner
        self._unpublished: list[list[StoredEvent]] = []

    async def commit(self, count: int = 1, *, size: int = 1, end: bool = False) -> list[StoredEvent]:
        """Commit the next events; tell nobody."""
        run_id, after = self.run.run_id, self.last_seq
        events = [
            StoredEvent(run_id, seq, str(seq).encode().ljust(size, b"."), terminal=end and seq == after + count)
            for seq in range(after + 1, after + count + 1)
        ]
        ending = Ending(RunStatus.COMPLETED, START) if end else None
        append = Append(run_id, self.run.epoch, after, events, ending=ending)
        assert await self._inner.events.append([append]) == [AppendOutcome.APPENDED]
        self.last_seq += count
        return events

    async def tell(self, count: int = 1, *, size: int = 1, end: bool = False) -> None:
        """Commit the next events and deliver them, as the journal does."""
        self.broadcast.publish(self.run.run_id, await self.commit(count, size=size, end=end))

    async def commit_to_tell_later(self, count: int) -> None:
        """Commit the next events, and deliver them when `tell_the_rest` says so."""
        self._unpublished.append(await self.commit(count))

    def tell_the_rest(self) -> None:
        """Deliver what was committed to be told later, in order of its commits."""
        for events in self._unpublished:
            self.broadcast.publish(self.run.run_id, events)
        self._unpublished.clear()

    async def watch(self, after_seq: int = 0) -> Watch:
        return await self.broadcast.watch(ADA, self.run.run_id, after_seq)


@asynccontextmanager
async def opened_stage() -> AsyncIterator[Stage]:
    inner = MemoryStorage(lambda: datetime.now(UTC))
    stage = Stage(CuttableStorage(inner), inner, await working(inner, a_run()))
    try:
        yield stage
    finally:
        await stage.broadcast.close()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with opened_stage() as stage:
        yield stage


async def read_all(watch: Watch) -> list[int]:
    """Return the seqs that a watcher gets until its end."""
    async with watch:
        return [event.seq async for batch in watch for event in batch]


async def live(stage: Stage, after_seq: int | None = None) -> tuple[Watch, "asyncio.Task[list[int]]"]:
    """Return a watch that has caught up and waits, and the task that waits for its next batch."""
    watch = await stage.watch(stage.last_seq if after_seq is None else after_seq)
    waiting = asyncio.create_task(take(watch))
    assert await is_stuck(waiting)
    return watch, waiting


async def take(watch: Watch) -> list[int]:
    """Return the seqs of the next batch."""
    return [event.seq for event in await anext(watch)]


def upto(last: int, after: int = 0) -> list[int]:
    return list(range(after + 1, last + 1))


# ---- Each event once, in order ----


async def test_what_there_is_is_replayed_and_what_comes_follows(stage: Stage) -> None:
    await stage.tell(2)
    reading = asyncio.create_task(read_all(await stage.watch()))
    assert await is_stuck(reading)
    await stage.tell(2)
    await settle()
    await stage.tell(end=True)
    assert await reading == upto(6)
    assert stage.broadcast.open_watches == 0


async def test_an_event_is_handed_out_before_the_next_is_made(stage: Stage) -> None:
    watch = await stage.watch()
    async with watch:
        assert await take(watch) == [1]
        for seq in (2, 3, 4):
            waiting = asyncio.create_task(take(watch))
            assert await is_stuck(waiting)
            await stage.tell()
            assert await waiting == [seq]


async def test_what_is_committed_while_a_watcher_subscribes_is_not_missed(stage: Stage) -> None:
    stage.storage.returns["get"].close()
    watching = asyncio.create_task(stage.watch(1))
    await stage.storage.returns["get"].reached()
    await stage.tell(3)
    stage.storage.returns["get"].open()
    watch = await watching
    assert await asyncio.wait_for(take(watch), 5) == [2, 3, 4]
    await stage.tell(end=True)
    assert await read_all(watch) == [5]


async def test_what_is_committed_while_a_watcher_reads_is_not_missed(stage: Stage) -> None:
    stage.storage.log.answers.close()
    reading = asyncio.create_task(read_all(await stage.watch()))
    await stage.storage.log.answers.reached()
    await stage.tell(3)
    stage.storage.log.answers.open()
    await stage.tell(end=True)
    assert await reading == upto(5)


async def test_a_long_replay_comes_in_pages(stage: Stage) -> None:
    await stage.tell(REPLAY_EVENTS + 5)
    await stage.tell(3, size=REPLAY_BYTES // 2 + 1)
    await stage.tell(end=True)
    watch = await stage.watch()
    batches = [[event.seq for event in batch] async for batch in watch]
    assert [seq for batch in batches for seq in batch] == upto(stage.last_seq)
    assert max(len(batch) for batch in batches) == REPLAY_EVENTS
    assert len(batches) > 3


async def test_events_of_another_process_come_through_the_poll(stage: Stage) -> None:
    stage.broadcast.start()
    reading = asyncio.create_task(read_all(await stage.watch()))
    assert await is_stuck(reading)
    await stage.commit(3)
    await stage.commit(end=True)
    async with asyncio.timeout(5):
        assert await reading == upto(5)


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.DEFECT])
async def test_the_poll_goes_on_after_a_failure(stage: Stage, fault: Fault) -> None:
    stage.storage.log.position_faults.extend([fault] * 3)
    stage.broadcast.start()
    reading = asyncio.create_task(read_all(await stage.watch()))
    await settle()
    await stage.commit(end=True)
    async with asyncio.timeout(5):
        assert await reading == upto(2)
    assert not stage.storage.log.position_faults


async def test_events_that_are_told_late_are_not_told_twice(stage: Stage) -> None:
    watch, waiting = await live(stage)
    await stage.commit_to_tell_later(2)
    await stage.tell(2)
    assert await waiting == [2, 3, 4, 5]
    stage.tell_the_rest()
    reading = asyncio.create_task(read_all(watch))
    assert await is_stuck(reading)
    await stage.tell(end=True)
    assert await reading == [6]


actions = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), st.integers(1, 4)),
        st.tuples(st.just("tell later"), st.integers(1, 4)),
        st.tuples(st.just("tell the rest"), st.just(0)),
        st.tuples(st.just("elsewhere"), st.integers(1, 4)),
        st.tuples(st.just("watch"), st.integers(0, 8)),
        st.tuples(st.just("let run"), st.integers(1, 6)),
        st.tuples(st.sampled_from(["reads", "answers", "lookups", "release"]), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=120)
@given(actions)
def test_a_watcher_that_comes_at_any_moment_sees_every_event_once_in_order(script: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        async with opened_stage() as stage:
            stage.broadcast.start()
            watchers: list[tuple[int, asyncio.Task[list[int]]]] = []
            for action, number in script:
                await perform(stage, action, number, watchers)
            stage.storage.open_gates()
            stage.tell_the_rest()
            await stage.tell(end=True)
            async with asyncio.timeout(10):
                for after_seq, watcher in watchers:
                    assert await watcher == upto(stage.last_seq, after_seq)
            assert stage.broadcast.open_watches == 0

    asyncio.run(scenario())


async def perform(
    stage: Stage, action: str, number: int, watchers: list[tuple[int, "asyncio.Task[list[int]]"]]
) -> None:
    """Do one thing: the last three hold up whoever comes there. Nobody goes on unless the script lets them run."""

    async def watch_and_read(after_seq: int) -> list[int]:
        return await read_all(await stage.watch(after_seq))

    match action:
        case "tell":
            await stage.tell(number)
        case "tell later":
            await stage.commit_to_tell_later(number)
        case "tell the rest":
            stage.tell_the_rest()
        case "elsewhere":
            await stage.commit(number)
        case "watch":
            after_seq = min(number, stage.last_seq)
            watchers.append((after_seq, asyncio.create_task(watch_and_read(after_seq))))
        case "let run":
            for _ in range(number):
                await asyncio.sleep(0)
        case "release":
            stage.storage.open_gates()
        case _:
            log = stage.storage.log
            {"reads": log.reads, "answers": log.answers, "lookups": stage.storage.returns["get"]}[action].close()


# ---- Slow watchers ----


@pytest.mark.parametrize(("size", "count"), [(1, MAX_WATCH_EVENTS), (MAX_WATCH_BYTES // 4, 4)], ids=["events", "bytes"])
async def test_a_watcher_is_slow_exactly_past_its_bound(stage: Stage, size: int, count: int) -> None:
    watch, waiting = await live(stage)
    full, full_waiting = await live(stage)
    keen, keen_waiting = await live(stage)
    await stage.tell()
    assert await waiting == await full_waiting == await keen_waiting == [2]
    keen_reading = asyncio.create_task(read_all(keen))
    for _ in range(count):
        await stage.tell(size=size)
        await asyncio.sleep(0)
    # Exactly full: whoever reads now has lost nothing.
    assert await take(full) == upto(2 + count, 2)
    await stage.tell()
    with pytest.raises(ApexError) as caught:
        await take(watch)
    assert (caught.value.reason, caught.value.last_seq) == (ErrorReason.SLOW_CONSUMER, 2)
    watch.close()
    await stage.tell(end=True)
    assert await read_all(full) == upto(stage.last_seq, 2 + count)
    assert await keen_reading == upto(stage.last_seq, 2)
    # Nothing is lost: it comes back with the seq that it was told.
    assert await read_all(await stage.watch(caught.value.last_seq or 0)) == upto(stage.last_seq, 2)


async def test_a_watcher_that_keeps_up_is_not_slow_however_much_comes_at_once(stage: Stage) -> None:
    watch, waiting = await live(stage)
    await stage.tell(2, size=MAX_WATCH_BYTES)
    first = await waiting
    await stage.tell(end=True)
    assert first + await read_all(watch) == [2, 3, 4]


async def test_a_watcher_that_still_replays_is_never_slow(stage: Stage) -> None:
    await stage.tell(REPLAY_EVENTS)
    watch = await stage.watch()
    assert len(await take(watch)) == REPLAY_EVENTS
    for _ in range(8):
        await stage.tell(size=MAX_WATCH_BYTES // 4)
    await stage.tell(end=True)
    assert await read_all(watch) == upto(stage.last_seq, REPLAY_EVENTS)


# ---- Cursors, owners, ends ----


async def test_a_cursor_beyond_the_log_is_told_where_the_log_ends(stage: Stage) -> None:
    await stage.tell(4)
    with pytest.raises(ApexError) as caught:
        await stage.watch(6)
    assert (caught.value.reason, caught.value.last_seq) == (ErrorReason.CURSOR_AHEAD, 5)
    assert stage.broadcast.open_watches == 0
    reading = asyncio.create_task(read_all(await stage.watch(5)))
    assert await is_stuck(reading)
    await stage.tell(end=True)
    assert await reading == [6]


async def test_a_run_of_somebody_else_is_not_found(stage: Stage) -> None:
    for caller, run_id in ((BOB, stage.run.run_id), (ADA, "0197f000-0000-7000-8000-000000000001")):
        with pytest.raises(ApexError) as caught:
            await stage.broadcast.watch(caller, run_id, 0)
        assert caught.value.reason is ErrorReason.NOT_FOUND
    assert stage.broadcast.open_watches == 0


async def test_a_finished_run_is_replayed_and_ends_at_once_for_who_has_seen_it(stage: Stage) -> None:
    await stage.tell(3, end=True)
    assert await read_all(await stage.watch()) == upto(4)
    assert await read_all(await stage.watch(3)) == [4]
    assert await read_all(await stage.watch(4)) == []
    with pytest.raises(ApexError) as caught:
        await stage.watch(5)
    assert caught.value.reason is ErrorReason.CURSOR_AHEAD


async def test_every_reader_gets_the_committed_bytes(stage: Stage) -> None:
    _, waiting = await live(stage, 1)
    watch = await stage.watch(1)
    lively = asyncio.create_task(anext(watch))
    await settle()
    committed = await stage.commit(3)
    stage.broadcast.publish(stage.run.run_id, committed)
    await waiting
    assert list(await lively) == committed == list(await anext(await stage.watch(1)))


async def test_a_deleted_run_is_not_found_by_who_watches_it(stage: Stage) -> None:
    stage.broadcast.start()
    _, waiting = await live(stage)
    await stage.storage.threads.delete("ada", stage.run.thread_id)
    with pytest.raises(ApexError) as caught:
        await asyncio.wait_for(waiting, 5)
    assert caught.value.reason is ErrorReason.NOT_FOUND


async def test_a_watch_can_be_closed_while_it_waits_or_reads(stage: Stage) -> None:
    watch, waiting = await live(stage)
    watch.close()
    watch.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
    stage.storage.log.answers.close()
    reading = await stage.watch()
    late = asyncio.create_task(read_all(reading))
    await stage.storage.log.answers.reached()
    reading.close()
    await stage.tell()
    stage.storage.log.answers.open()
    assert await late in ([], [1])
    assert stage.broadcast.open_watches == 0


async def test_a_reader_that_gives_up_waiting_loses_nothing(stage: Stage) -> None:
    watch = await stage.watch()
    for gate in (stage.storage.log.reads, stage.storage.log.answers):
        gate.close()
        impatient = asyncio.create_task(take(watch))
        assert await is_stuck(impatient)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        gate.open()
        await stage.tell()
    await stage.tell(end=True)
    assert await read_all(watch) == upto(4)


async def test_a_database_that_is_away_during_a_replay_says_so_and_nothing_is_lost(stage: Stage) -> None:
    watch = await stage.watch()
    stage.storage.cut.add("events")
    with pytest.raises(ApexError) as caught:
        await take(watch)
    assert caught.value.reason is ErrorReason.STORAGE_UNAVAILABLE
    stage.storage.cut.clear()
    await stage.tell(end=True)
    assert await read_all(watch) == upto(2)


# ---- Thread changes ----


def change(number: int, user_id: str = "ada") -> ThreadChange:
    return ThreadChange(ThreadChangeKind.UPDATED, ThreadRecord(str(number), user_id, "", START, START))


async def test_a_subscriber_hears_of_its_own_users_changes_from_then_on(stage: Stage) -> None:
    broadcast = stage.broadcast
    broadcast.thread_changed(change(1))
    with broadcast.thread_changes("ada") as one, broadcast.thread_changes("ada") as two:
        broadcast.thread_changed(change(2))
        broadcast.thread_changed(change(3, "bob"))
        waiting = asyncio.create_task(_thread_ids(one, 2))
        assert await is_stuck(waiting)
        broadcast.thread_changed(change(4))
        assert await waiting == await _thread_ids(two, 2) == ["2", "4"]


@pytest.mark.parametrize("count", [MAX_THREAD_CHANGES, MAX_THREAD_CHANGES + 1])
async def test_too_many_waiting_changes_end_the_subscription(stage: Stage, count: int) -> None:
    with stage.broadcast.thread_changes("ada") as changes, stage.broadcast.thread_changes("ada") as keen:
        for number in range(count):
            stage.broadcast.thread_changed(change(number))
            assert await _thread_ids(keen, 1) == [str(number)]
        assert await _thread_ids(changes, MAX_THREAD_CHANGES) == [str(n) for n in range(MAX_THREAD_CHANGES)]
        waiting = asyncio.create_task(_thread_ids(changes, 1))
        if count == MAX_THREAD_CHANGES:
            assert await is_stuck(waiting)
            waiting.cancel()
            return
        with pytest.raises(ApexError) as caught:
            await waiting
        assert caught.value.reason is ErrorReason.SLOW_CONSUMER


async def _thread_ids(changes: AsyncIterator[ThreadChange], count: int) -> list[str]:
    return [(await anext(changes)).thread.thread_id for _ in range(count)]


class Taker:
    """A sink that takes what it may, and keeps it together with what the iterator yields."""

    def __init__(self, watch: Watch) -> None:
        self.seqs: list[int] = []
        self.straight: list[int] = []
        self.may_take = True
        self._watch = watch
        watch.pass_on_to(self.take)

    def take(self, events: Sequence[StoredEvent]) -> bool:
        if self.may_take:
            self.straight += [event.seq for event in events]
            self.seqs += [event.seq for event in events]
        return self.may_take

    async def read(self) -> None:
        """Follow the watch to its end."""
        async with self._watch:
            async for batch in self._watch:
                self.seqs += [event.seq for event in batch]


async def test_live_events_go_straight_to_a_sink(stage: Stage) -> None:
    taker = Taker(await stage.watch(stage.last_seq))
    reading = asyncio.create_task(taker.read())
    await stage.tell()
    assert taker.straight == [2]
    await stage.tell(3, end=True)
    await reading
    assert taker.straight == [2, 3, 4, 5] == taker.seqs


async def test_what_was_missed_comes_before_what_a_sink_gets(stage: Stage) -> None:
    await stage.commit(2)
    taker = Taker(await stage.watch(0))
    await stage.tell()
    assert not taker.straight
    reading = asyncio.create_task(taker.read())
    await settle()
    await stage.tell(end=True)
    await reading
    assert taker.seqs == [1, 2, 3, 4, 5]
    assert taker.straight == [5]


async def test_what_a_sink_does_not_take_is_yielded_in_its_place(stage: Stage) -> None:
    taker = Taker(await stage.watch(stage.last_seq))
    taker.may_take = False
    await stage.tell()
    taker.may_take = True
    await stage.tell()  # the one before still waits: nothing may overtake it
    assert not taker.straight
    reading = asyncio.create_task(taker.read())
    await settle()
    await stage.tell(end=True)
    await reading
    assert taker.seqs == [2, 3, 4]
    assert taker.straight == [4]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_a_sink_and_the_iterator_together_give_every_event_once_in_order(
    steps: list[tuple[int, bool, bool, bool]],
) -> None:
    async def check() -> None:
        async with opened_stage() as stage:
            taker = Taker(await stage.watch(0))
            reading = asyncio.create_task(taker.read())
            for count, is_told, may_take, others_go_on in steps:
                taker.may_take = may_take
                if is_told:
                    await stage.tell(count)
                else:
                    await stage.commit(count)
                if others_go_on:
                    await settle()
            taker.may_take = True
            await stage.tell(end=True)
            await reading
            assert taker.seqs == list(range(1, stage.last_seq + 1))

    asyncio.run(check())


async def test_a_sink_that_takes_nothing_makes_a_slow_watch_like_any_other(stage: Stage) -> None:
    watch, waiting = await live(stage)
    watch.pass_on_to(lambda _: False)
    await stage.tell()
    await waiting
    for _ in range(3):
        await stage.tell(size=MAX_WATCH_BYTES // 2)
    with pytest.raises(ApexError) as slow:
        await anext(watch)
    assert slow.value.reason is ErrorReason.SLOW_CONSUMER
    assert slow.value.last_seq == 2
