"""The journal: every event of this process is committed here, and only then delivered.

Group commit: one writer takes whatever is pending of all runs into one transaction and waits for nothing; what comes
meanwhile goes into the next. A run's events are bounded while they wait: `RunWriter.room` then waits for the
database.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from agent_service.engine.errors import FencedError
from storage.errors import StorageUnavailableError
from storage.interfaces import EventLog
from storage.records import Append, AppendOutcome, Checkpoint, Ending, RunRecord, StoredEvent

MAX_PENDING_EVENTS: Final = 256
"""Uncommitted events of one run before its producer waits."""

MAX_PENDING_BYTES: Final = 256 * 1024
"""Uncommitted bytes of one run before its producer waits. The event that reaches it is still let through."""

MAX_COMMIT_EVENTS: Final = 8_192
"""Events in one transaction, over all runs; what is left goes into the next."""

RETRY_DELAYS_MS: Final = (20, 100, 500, 1000, 2000, 2000, 2000)
"""Pauses before a failed transaction is tried again; after the last one its runs get the error."""

Deliver = Callable[[str, Sequence[StoredEvent]], None]


class RunWriter:
    """The journal's side of one claimed run. Only the holder of the run's epoch has one."""

    def __init__(self, journal: "Journal", run_id: str, epoch: int, last_seq: int) -> None:
        self.run_id = run_id
        self.epoch = epoch
        self.committed_seq = last_seq
        self._journal = journal
        self._pending: list[StoredEvent] = []
        self._pending_bytes = 0
        self._checkpoint: Checkpoint | None = None
        self._ending: Ending | None = None
        self._error: Exception | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.appended_seq = last_seq

    @property
    def has_room(self) -> bool:
        """True when `room` would return at once."""
        return not self._is_full() and self._error is None

    async def room(self) -> None:
        """Wait while too much of this run is uncommitted.

        Raises `FencedError` when another worker holds the run, `StorageUnavailableError` when the database stays away.
        """
        while self._is_full() and self._error is None:
            await self._next_commit()
        self._raise_error()

    def append(self, event: StoredEvent, *, checkpoint: Checkpoint | None = None, ending: Ending | None = None) -> None:
        """Queue the run's next event for the next commit. Never waits: ask for `room` first. Raises as `room` does."""
        self._raise_error()
        self._pending.append(event)
        self._pending_bytes += len(event.data)
        self.appended_seq = event.seq
        self._checkpoint = checkpoint or self._checkpoint
        self._ending = ending or self._ending
        if len(self._pending) == 1:
            self._journal.wake(self)

    async def flush(self) -> None:
        """Return when all that was appended is committed. Raises as `room` does."""
        target = self.appended_seq
        while self.committed_seq < target and self._error is None:
            await self._next_commit()
        self._raise_error()

    def _is_full(self) -> bool:
        return len(self._pending) >= MAX_PENDING_EVENTS or self._pending_bytes >= MAX_PENDING_BYTES

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    async def _next_commit(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def take(self) -> Append:
        """Hand all that is pending to the journal's writer."""
        append = Append(
            self.run_id, self.epoch, self._pending[0].seq - 1, self._pending, self._checkpoint, self._ending
        )
        self._pending, self._pending_bytes = [], 0
        self._checkpoint = self._ending = None
        return append

    def committed(self, seq: int) -> None:
        """All up to `seq` is in the log."""
        self.committed_seq = seq
        self._release()

    def failed(self, error: Exception) -> None:
        """Nothing more of this run will be committed by this worker."""
        self._error = error
        self._pending.clear()
        self._release()

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def pending_events(self) -> int:
        """How many events wait for the next transaction."""
        return len(self._pending)


class Journal:
    """The one writer of this process's events. `deliver` is called after each commit, run by run, in seq order."""

    def __init__(self, log: EventLog, deliver: Deliver, *, retry_delays_ms: Sequence[int] = RETRY_DELAYS_MS) -> None:
        self._log = log
        self._deliver = deliver
        self._retry_delays_ms = retry_delays_ms
        #: In the order in which they were woken. Not by run: a fenced writer may still be there beside its heir.
        self._dirty: dict[RunWriter, None] = {}
        self._wakeup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._closed = False
        self._logger = structlog.get_logger("apex.journal")

    def start(self) -> None:
        """Start the writer."""
        self._task = asyncio.create_task(self._write(), name="journal")

    async def close(self) -> None:
        """Commit what is pending, then stop. What is appended later fails."""
        self._closing = True
        self._wakeup.set()
        if self._task is not None:
            await self._task

    def open_run(self, run: RunRecord) -> RunWriter:
        """Return the writer of a run that was just claimed: its epoch and position are the record's."""
        return RunWriter(self, run.run_id, run.epoch, run.last_seq)

    def wake(self, writer: RunWriter) -> None:
        """Note that this run has something to commit."""
        if self._closed:
            writer.failed(StorageUnavailableError("the journal is closed: the service is stopping"))
            return
        self._dirty[writer] = None
        self._wakeup.set()

    async def _write(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._dirty:
                batch = self._take_batch()
                if batch:
                    await self._commit(batch)
            if self._closing:
                self._closed = True
                return

    def _take_batch(self) -> list[tuple[RunWriter, Append]]:
        batch: dict[str, tuple[RunWriter, Append]] = {}
        events = 0
        for writer in list(self._dirty):
            if batch and events + writer.pending_events > MAX_COMMIT_EVENTS:
                break
            if writer.run_id in batch:
                continue
            del self._dirty[writer]
            if writer.pending_events:
                events += writer.pending_events
                batch[writer.run_id] = writer, writer.take()
        return list(batch.values())

    async def _commit(self, batch: Sequence[tuple[RunWriter, Append]], *, unknown: bool = False) -> None:
        try:
            outcomes = await self._append([append for _, append in batch], unknown=unknown)
        except Exception as error:
            # Whatever it was, the runs must hear of it: a writer that died silently would hang them all.
            self._logger.exception("commit_failed", run_ids=[append.run_id for _, append in batch])
            if len(batch) == 1 or isinstance(error, StorageUnavailableError):
                for writer, _ in batch:
                    writer.failed(error)
            else:
                # One run's events must not take the others with them. What was committed before it came to this, if
                # anything, the log says.
                for item in batch:
                    await self._commit([item], unknown=True)
            return
        for (writer, append), outcome in zip(batch, outcomes, strict=True):
            if outcome is AppendOutcome.FENCED:
                writer.failed(FencedError(append.run_id))
                continue
            self._announce(append)
            writer.committed(append.events[-1].seq)

    def _announce(self, append: Append) -> None:
        try:
            self._deliver(append.run_id, append.events)
        except Exception:
            # The events are safe in the log; a fault in their delivery must not stop the writer of all runs.
            self._logger.exception("delivery_failed", run_id=append.run_id)

    async def _append(self, appends: Sequence[Append], *, unknown: bool) -> Sequence[AppendOutcome]:
        """Append, trying again while the database is away; never twice what may have been committed.

        `unknown`: some of it may already be.
        """
        outcomes: dict[str, AppendOutcome] = {}
        remaining, doubtful, has_failed = list(appends), list[Append](), unknown
        for delay_ms in (*self._retry_delays_ms, None):
            try:
                if unknown:
                    outcomes |= await self._settled(remaining)
                    remaining = [append for append in remaining if append.run_id not in outcomes]
                    unknown = False
                if remaining:
                    results = await self._log.append(remaining)
                    outcomes |= {append.run_id: result for append, result in zip(remaining, results, strict=True)}
                    fenced = [append for append in remaining if outcomes[append.run_id] is AppendOutcome.FENCED]
                    # An earlier round may have been carried out after all, later than the log was asked about it.
                    remaining, doubtful = [], fenced if has_failed else []
                if doubtful:
                    outcomes |= await self._settled(doubtful)
                return [outcomes[append.run_id] for append in appends]
            except StorageUnavailableError as error:
                has_failed = True
                unknown = unknown or error.outcome_unknown
                self._logger.warning("commit_retry", delay_ms=delay_ms, outcome_unknown=unknown, error=str(error))
                if delay_ms is None:
                    raise
                await asyncio.sleep(delay_ms / 1000)
        raise AssertionError("unreachable: the last round returns or raises")

    async def _settled(self, appends: Sequence[Append]) -> dict[str, AppendOutcome]:
        """Return the outcomes that the log itself shows after a COMMIT whose answer was lost."""
        positions = await self._log.positions([append.run_id for append in appends])
        outcomes: dict[str, AppendOutcome] = {}
        for append in appends:
            position = positions.get(append.run_id)
            if position is None or position.epoch != append.epoch:
                outcomes[append.run_id] = AppendOutcome.FENCED
            elif position.last_seq >= append.events[-1].seq:
                outcomes[append.run_id] = AppendOutcome.APPENDED
            elif position.last_seq != append.after_seq:
                outcomes[append.run_id] = AppendOutcome.FENCED
        return outcomes
