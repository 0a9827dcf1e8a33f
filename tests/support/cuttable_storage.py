"""Any storage behind a line that a test can cut, part by part, or hold up, call by call."""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Final, cast

from storage.errors import StorageUnavailableError
from storage.interfaces import ActionPlans, Corpora, EventLog, Files, Runs, Storage, Threads
from tests.support.faulty_log import FaultyEventLog
from tests.support.gates import Gate

EVERYTHING: Final = frozenset({"events", "runs", "threads"})
INTERNALS: Final = "postgresql://root:hunter2@db/prod"
"""What the text of a defect holds, and no client may ever see."""


class CuttableStorage:
    """Implements `storage.interfaces.Storage` over another one.

    While a part is in `cut`, every call of it fails as when the database is away, or when this process is dead; the
    calls named in `failing` fail too, those in `unanswered` are carried out, but nobody hears of it, and those in
    `defective` meet a defect of ours. A call whose name has a gate in `gates` waits there before it does anything;
    `returns` holds it up on the way back.
    """

    def __init__(self, inner: Storage) -> None:
        self.cut: set[str] = set()
        self.failing: set[str] = set()
        self.unanswered: set[str] = set()
        self.defective: set[str] = set()
        self.gates: defaultdict[str, Gate] = defaultdict(Gate)
        self.returns: defaultdict[str, Gate] = defaultdict(Gate)
        #: The event log has faults of its own.
        self.log = FaultyEventLog(cast("EventLog", _Line(inner.events, "events", self)))
        self._runs = cast("Runs", _Line(inner.runs, "runs", self))
        self._threads = cast("Threads", _Line(inner.threads, "threads", self))
        self._inner = inner

    @property
    def events(self) -> EventLog:
        return self.log

    @property
    def runs(self) -> Runs:
        return self._runs

    @property
    def threads(self) -> Threads:
        return self._threads

    @property
    def files(self) -> Files:
        return self._inner.files

    @property
    def corpora(self) -> Corpora:
        return self._inner.corpora

    @property
    def plans(self) -> ActionPlans:
        return self._inner.plans

    def open_gates(self) -> None:
        """Hold nobody up any more."""
        for gate in (*self.gates.values(), *self.returns.values()):
            gate.open()
        for gate in (self.log.appends, self.log.reads, self.log.answers):
            gate.open()

    async def ping(self) -> None:
        await self._inner.ping()

    async def close(self) -> None:
        """Leave the other storage open: it is the test's."""


class _Line:
    """Hands every asynchronous call on, if it may."""

    def __init__(self, inner: object, part: str, storage: CuttableStorage) -> None:
        self._inner = inner
        self._part = part
        self._storage = storage

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method: Callable[..., Awaitable[object]] = getattr(self._inner, name)

        async def call(*args: object, **options: object) -> object:
            await self._storage.gates[name].passage()
            if self._part in self._storage.cut or name in self._storage.failing:
                raise StorageUnavailableError("the line is cut")
            if name in self._storage.defective:
                raise LookupError(f"{name} fell over {INTERNALS}")
            result = await method(*args, **options)
            if name in self._storage.unanswered:
                raise StorageUnavailableError("the answer is lost", outcome_unknown=True)
            await self._storage.returns[name].passage()
            return result

        return call
