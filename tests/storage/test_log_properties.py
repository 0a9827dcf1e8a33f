"""Properties of the log under any order of claims, appends, lost answers and reads, on every storage.

Two workers write to one run as the journal does: each believes itself the run's holder until it is told otherwise, and
after a COMMIT of unknown outcome it reads the position before it goes on. The model is the list of events that were
acknowledged. Readers come at any moment.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from storage.database import open_database, sqlite_url
from storage.errors import StorageUnavailableError
from storage.event_log import SqlEventLog
from storage.interfaces import EventLog, Runs
from storage.memory import MemoryStorage
from storage.migrating import migrate
from storage.records import Append, AppendOutcome, Checkpoint, Ending, RunRecord, RunStatus, StoredEvent
from storage.runs import SqlRuns
from tests.support.faulty_commit import Fault, FaultPlan, FaultyMemoryLog, faulty_postgres, faulty_sqlite
from tests.support.storage import NO_LEASE_MS, ManualClock, a_run, at, new_id

T = TypeVar("T")

WORKERS = st.integers(0, 1)
READERS = st.integers(0, 2)


class Writing(Protocol):
    """The part of a log under test that can fail."""

    async def append(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]: ...


@dataclass(frozen=True)
class Subject:
    """A storage whose next COMMIT may be lost."""

    runs: Runs
    log: EventLog
    writing: Writing
    plan: FaultPlan


class LogMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self, subject: Subject, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._subject = subject
        self._loop = loop
        self._fresh = count()
        self._acknowledged: list[bytes] = []
        self._holder_epoch = 0
        self._ended = False
        self._checkpoint: Checkpoint | None = None
        self._workers: dict[int, RunRecord] = {}
        self._seen: dict[int, list[bytes]] = {0: [], 1: [], 2: []}

    def _do(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return self._loop.run_until_complete(wait())

    @initialize(must_wait=st.booleans())
    def accept(self, must_wait: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        self._new = replace(a_run(f"user-{new_id()}"), must_wait=must_wait)
        self._run = self._do(self._subject.runs.accept(self._new)).run
        self._acknowledged = [b"started", b"queued"] if must_wait else [b"started"]

    @rule(worker=WORKERS)
    def claim(self, worker: int) -> None:
        """Leases end at once, so that either worker may take over at any moment."""
        claimed = self._do(
            self._subject.runs.claim_run(self._run.user_id, self._run.run_id, f"w{worker}", lease_ms=NO_LEASE_MS)
        )
        assert (claimed is None) == self._ended
        if claimed is not None:
            self._holder_epoch += 1
            assert claimed.epoch == self._holder_epoch
            assert claimed.last_seq == len(self._acknowledged)
            self._workers[worker] = claimed

    @rule(
        worker=WORKERS,
        number=st.integers(0, 4),
        fault=st.sampled_from(Fault),
        saves=st.booleans(),
        ends=st.integers(0, 9).map(lambda draw: draw == 0),
    )
    def append(self, worker: int, number: int, fault: Fault, saves: bool, ends: bool) -> None:  # noqa: FBT001
        held = self._workers.get(worker)
        if held is None:
            return
        append = self._make_append(held, number, saves=saves, ends=ends)
        self._subject.plan.next = fault
        outcome = self._do(self._write(append))
        assert self._subject.plan.next is Fault.NONE
        may_write = held.epoch == self._holder_epoch and not self._ended
        assert (outcome is AppendOutcome.APPENDED) == may_write
        if not may_write:
            del self._workers[worker]
            return
        self._acknowledged += [event.data for event in append.events]
        self._workers[worker] = replace(held, last_seq=len(self._acknowledged))
        self._checkpoint = append.checkpoint or self._checkpoint
        self._ended = append.ending is not None

    @rule(reader=READERS, max_events=st.integers(1, 5), max_bytes=st.integers(0, 60))
    def read(self, reader: int, max_events: int, max_bytes: int) -> None:
        seen = self._seen[reader]
        read = self._do(
            self._subject.log.read(
                self._run.user_id, self._run.run_id, len(seen), max_events=max_events, max_bytes=max_bytes
            )
        )
        assert [event.seq for event in read] == list(range(len(seen) + 1, len(seen) + 1 + len(read)))
        assert bool(read) == (len(seen) < len(self._acknowledged))
        seen += [event.data for event in read]
        assert seen == self._acknowledged[: len(seen)]

    @invariant()
    def the_log_is_what_was_acknowledged(self) -> None:
        if not self._acknowledged:
            return
        log = self._do(
            self._subject.log.read(self._run.user_id, self._run.run_id, 0, max_events=10_000, max_bytes=1 << 20)
        )
        assert [event.seq for event in log] == list(range(1, len(log) + 1))
        assert [event.data for event in log] == self._acknowledged
        assert [event.terminal for event in log[:-1]] == [False] * (len(log) - 1)
        assert log[-1].terminal == self._ended
        assert self._do(self._subject.log.checkpoint(self._run.run_id)) == self._checkpoint

    def _make_append(self, held: RunRecord, number: int, *, saves: bool, ends: bool) -> Append:
        first = held.last_seq + 1
        events = [
            StoredEvent(held.run_id, seq, b"event %d" % next(self._fresh)) for seq in range(first, first + number)
        ]
        ending = None
        if ends:
            events.append(StoredEvent(held.run_id, first + number, b"end %d" % next(self._fresh), terminal=True))
            ending = Ending(RunStatus.CANCELLED, at(1))
        checkpoint = Checkpoint(held.last_seq + len(events), next(self._fresh), b"state") if saves else None
        return Append(held.run_id, held.epoch, held.last_seq, events, checkpoint, ending)

    async def _write(self, append: Append) -> AppendOutcome:
        """Append as the journal does: once, whatever becomes of the COMMIT."""
        try:
            (outcome,) = await self._subject.writing.append([append])
        except StorageUnavailableError as error:
            if not error.outcome_unknown:
                raise
            position = (await self._subject.log.positions([append.run_id]))[append.run_id]
            if position.epoch != append.epoch:
                return AppendOutcome.FENCED
            if append.events and position.last_seq == append.after_seq + len(append.events):
                return AppendOutcome.APPENDED
            # Nothing was written; or nothing but a checkpoint, which may well be written twice.
            (outcome,) = await self._subject.log.append([append])
        return outcome


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def check(loop: asyncio.AbstractEventLoop, subject: Subject, *, examples: int, steps: int) -> None:
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
    )

    class Machine(LogMachine):
        def __init__(self) -> None:
            super().__init__(subject, loop)

    run_state_machine_as_test(Machine, settings=limits)


def test_the_log_in_memory(loop: asyncio.AbstractEventLoop) -> None:
    storage, plan = MemoryStorage(ManualClock().now), FaultPlan()
    subject = Subject(storage.runs, storage.events, FaultyMemoryLog(storage.events, plan), plan)
    check(loop, subject, examples=100, steps=40)


def test_the_log_in_sqlite(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    plan = FaultPlan()
    database = open_database(sqlite_url(tmp_path / "apex.db"), sqlite_connection_class=faulty_sqlite(plan))
    loop.run_until_complete(migrate(database))
    log = SqlEventLog(database)
    try:
        check(loop, Subject(SqlRuns(database), log, log, plan), examples=25, steps=25)
    finally:
        loop.run_until_complete(database.close())


@pytest.mark.postgres
def test_the_log_in_postgres(loop: asyncio.AbstractEventLoop, migrated_postgres_url: str) -> None:
    plan = FaultPlan(alone=True)
    opened = AsyncExitStack()

    async def start() -> Subject:
        url = await opened.enter_async_context(faulty_postgres(migrated_postgres_url, plan))
        database = open_database(url)
        opened.push_async_callback(database.close)
        log = SqlEventLog(database)
        return Subject(SqlRuns(database), log, log, plan)

    subject = loop.run_until_complete(start())
    try:
        check(loop, subject, examples=12, steps=20)
    finally:
        loop.run_until_complete(opened.aclose())
