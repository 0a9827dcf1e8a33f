"""The first events of runs that began here a moment ago, so that nobody has to read what was just written.

A run's first watcher and its worker come within milliseconds after its acceptance. Nothing here is the truth: what is
missing is read from the log, and what has not grown for a moment is forgotten, for another process may work on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.records import StoredEvent

MAX_BEGINNING_BYTES: Final = 256 * 1024
"""Of one run; one that grows beyond is forgotten."""

MAX_BEGINNINGS_BYTES: Final = 32 * 1024 * 1024
"""Of all runs; beyond that the oldest are forgotten."""


@dataclass(slots=True)
class Beginning:
    """All events of a run from seq 1 on, as committed."""

    user_id: str
    events: list[StoredEvent] = field(default_factory=list)
    size_bytes: int = 0
    is_worked_on: bool = False
    has_grown: bool = True

    @property
    def last_seq(self) -> int:
        """The seq of the last event; also how many there are."""
        return len(self.events)


class Beginnings:
    """By run. `tick` lets time pass; what did not grow since the tick before is forgotten."""

    def __init__(self) -> None:
        self._by_run: dict[str, Beginning] = {}
        self._size_bytes = 0

    def begin(self, user_id: str, run_id: str, events: Sequence[StoredEvent]) -> None:
        """Take the events of an acceptance that was just committed."""
        self._by_run[run_id] = Beginning(user_id)
        self._extend(run_id, events)

    def extend(self, run_id: str, events: Sequence[StoredEvent]) -> None:
        """Take committed events of a run, in order; those of a run that is not known here are left to the log."""
        beginning = self._by_run.get(run_id)
        if beginning is None:
            return
        if events[0].seq != beginning.last_seq + 1 or events[-1].terminal:
            self._forget(run_id)
            return
        beginning.is_worked_on = True
        self._extend(run_id, events)

    def _extend(self, run_id: str, events: Sequence[StoredEvent]) -> None:
        beginning = self._by_run[run_id]
        beginning.events.extend(events)
        beginning.has_grown = True
        size = sum(len(event.data) for event in events)
        beginning.size_bytes += size
        self._size_bytes += size
        if beginning.size_bytes > MAX_BEGINNING_BYTES:
            self._forget(run_id)
        while self._size_bytes > MAX_BEGINNINGS_BYTES:
            self._forget(next(iter(self._by_run)))

    def find(self, user_id: str, run_id: str) -> Sequence[StoredEvent]:
        """Return the events of a run of this user from seq 1 on; none where it is not known here."""
        beginning = self._by_run.get(run_id)
        return beginning.events if beginning is not None and beginning.user_id == user_id else ()

    def is_worked_on(self, run_id: str) -> bool:
        """Tell whether this process has written more of the run than its acceptance."""
        beginning = self._by_run.get(run_id)
        return beginning is not None and beginning.is_worked_on

    def tick(self) -> None:
        """Forget what has not grown since the last tick."""
        for run_id, beginning in list(self._by_run.items()):
            if not beginning.has_grown:
                self._forget(run_id)
            beginning.has_grown = False

    def _forget(self, run_id: str) -> None:
        beginning = self._by_run.pop(run_id)
        self._size_bytes -= beginning.size_bytes
