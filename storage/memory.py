"""Storage in memory, with the same behaviour as the databases: for tests, trials and tools that keep nothing.

Nothing here awaits between reading and writing, so that the event loop itself is the lock. Use it from one loop.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from storage.appends import check_appends
from storage.errors import StorageUnavailableError
from storage.memory_corpora import MemoryCorpora
from storage.memory_files import MemoryFiles
from storage.memory_plans import MemoryActionPlans
from storage.memory_runs import MemoryRuns
from storage.memory_state import MemoryState
from storage.memory_threads import MemoryThreads
from storage.records import Append, AppendOutcome, Checkpoint, Position, StoredEvent


class MemoryEventLog:
    """Implements `storage.interfaces.EventLog`."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def append(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        check_appends(appends)
        return [self._append(append) for append in appends]

    async def read(
        self, user_id: str, run_id: str, after_seq: int, *, max_events: int, max_bytes: int
    ) -> Sequence[StoredEvent]:
        self._state.run(user_id, run_id)
        taken: list[StoredEvent] = []
        room = max_bytes
        for event in self._state.events[run_id][after_seq : after_seq + max_events]:
            room -= len(event.data)
            if taken and room < 0:
                break
            taken.append(event)
        return taken

    async def positions(self, run_ids: Collection[str], *, final: bool = True) -> Mapping[str, Position]:
        found = (self._state.runs.get(run_id) for run_id in run_ids)
        return {run.run_id: Position(run.epoch, run.last_seq, run.status) for run in found if run}

    async def checkpoint(self, run_id: str) -> Checkpoint | None:
        return self._state.checkpoints.get(run_id)

    def _append(self, append: Append) -> AppendOutcome:
        run = self._state.runs.get(append.run_id)
        if run is None or run.end_time or (run.epoch, run.last_seq) != (append.epoch, append.after_seq):
            return AppendOutcome.FENCED
        run = replace(run, last_seq=append.after_seq + len(append.events))
        self._state.events[append.run_id].extend(append.events)
        if append.checkpoint:
            run = replace(run, claims=0)
            self._state.checkpoints[append.run_id] = append.checkpoint
        if ending := append.ending:
            run = replace(
                run,
                status=ending.status,
                end_time=ending.end_time,
                error_reason=ending.error_reason,
                worker_id=None,
                lease_expire_time=None,
            )
            self._state.touch(run.thread_id, ending.end_time)
            if ending.message:
                self._state.add_message(ending.message)
        self._state.runs[append.run_id] = run
        return AppendOutcome.APPENDED


class MemoryStorage:
    """Implements `storage.interfaces.Storage`."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """`now` gives the time, UTC, by which leases are measured."""
        self.state = MemoryState(now)
        self._events = MemoryEventLog(self.state)
        self._runs = MemoryRuns(self.state)
        self._threads = MemoryThreads(self.state)
        self._files = MemoryFiles(self.state)
        self._corpora = MemoryCorpora(self.state)
        self._plans = MemoryActionPlans(self.state)
        self._closed = False

    @property
    def events(self) -> MemoryEventLog:
        return self._events

    @property
    def runs(self) -> MemoryRuns:
        return self._runs

    @property
    def threads(self) -> MemoryThreads:
        return self._threads

    @property
    def files(self) -> MemoryFiles:
        return self._files

    @property
    def corpora(self) -> MemoryCorpora:
        return self._corpora

    @property
    def plans(self) -> MemoryActionPlans:
        return self._plans

    async def ping(self) -> None:
        if self._closed:
            raise StorageUnavailableError("the storage is closed")

    async def close(self) -> None:
        self._closed = True
        self._files.remove_copies()
