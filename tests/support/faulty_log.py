"""An event log that fails, waits or loses its answer where a test says so, before any other log."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto

from storage.errors import StorageUnavailableError
from storage.interfaces import EventLog
from storage.records import Append, AppendOutcome, Checkpoint, Position, StoredEvent
from tests.support.gates import Gate


class Fault(Enum):
    """What happens to one call of `append`."""

    NONE = auto()
    #: The database is away: nothing is saved, and the caller knows.
    AWAY = auto()
    #: All is saved, but the answer is lost.
    LOST_AFTER_COMMIT = auto()
    #: The COMMIT is lost on its way: nothing is saved, and the caller does not know.
    LOST_BEFORE_COMMIT = auto()
    #: A defect: it has nothing to do with the database being there.
    DEFECT = auto()


class PoisonError(Exception):
    """The log cannot take these events, now or ever."""


class FaultyEventLog:
    """Implements `storage.interfaces.EventLog` over another one."""

    def __init__(self, inner: EventLog) -> None:
        self._inner = inner
        #: What happens to the next appends, one each; none are left: they go through.
        self.faults: deque[Fault] = deque()
        #: What happens to the next look-ups of positions.
        self.position_faults: deque[Fault] = deque()
        #: Runs whose events the log refuses.
        self.poisoned: set[str] = set()
        #: All calls of `append`, as they came.
        self.calls: list[Sequence[Append]] = []
        #: The last seq of each run that is known to be saved.
        self.committed: dict[str, int] = {}
        #: Where each append waits before it does anything, and where each read does.
        self.appends = Gate()
        self.reads = Gate()
        #: Where a read waits with its answer in the hand.
        self.answers = Gate()

    async def append(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        self.calls.append(appends)
        await self.appends.passage()
        fault = self.faults.popleft() if self.faults else Fault.NONE
        if fault is Fault.DEFECT or self.poisoned.intersection(append.run_id for append in appends):
            raise PoisonError("these events cannot be stored")
        if fault is Fault.AWAY:
            raise StorageUnavailableError("the database is away")
        if fault is Fault.LOST_BEFORE_COMMIT:
            raise StorageUnavailableError("the answer is lost", outcome_unknown=True)
        outcomes = await self._inner.append(appends)
        for append, outcome in zip(appends, outcomes, strict=True):
            if outcome is AppendOutcome.APPENDED and append.events:
                self.committed[append.run_id] = append.events[-1].seq
        if fault is Fault.LOST_AFTER_COMMIT:
            raise StorageUnavailableError("the answer is lost", outcome_unknown=True)
        return outcomes

    async def read(
        self, user_id: str, run_id: str, after_seq: int, *, max_events: int, max_bytes: int
    ) -> Sequence[StoredEvent]:
        await self.reads.passage()
        page = await self._inner.read(user_id, run_id, after_seq, max_events=max_events, max_bytes=max_bytes)
        await self.answers.passage()
        return page

    async def positions(self, run_ids: Collection[str], *, final: bool = True) -> Mapping[str, Position]:
        fault = self.position_faults.popleft() if self.position_faults else Fault.NONE
        if fault is Fault.DEFECT:
            raise PoisonError("a defect")
        if fault is not Fault.NONE:
            raise StorageUnavailableError("the database is away")
        return await self._inner.positions(run_ids, final=final)

    async def checkpoint(self, run_id: str) -> Checkpoint | None:
        return await self._inner.checkpoint(run_id)
