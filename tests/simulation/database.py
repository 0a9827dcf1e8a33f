"""The one database of a simulation, and each machine's line to it: slow, and at times cut.

An operation takes effect at one moment, on the database's side. Its request and its answer travel; either can be lost.
A machine that dies or forgets its caller does not take back what it sent.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from random import Random
from typing import Final, TypeVarTuple, cast

from storage.errors import StorageError, StorageUnavailableError
from storage.interfaces import ActionPlans, Corpora, EventLog, Files, Runs, Threads
from storage.memory import MemoryStorage
from storage.memory_state import MemoryState
from storage.records import Accepted, Append, AppendOutcome, NewRun, RunRecord
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Machine
from tests.simulation.verdict import Verdict

Ts = TypeVarTuple("Ts")

WRITES: Final = frozenset({
    "accept", "append", "beat", "claim", "claim_run", "create", "delete", "release", "release_all", "rename",
    "request_cancel", "resolve", "wait",
})  # fmt: skip
"""The operations whose COMMIT can be lost."""

EVENS: Final = 0.5

SLOW_S: Final = 0.5
"""An answer that takes longer may cost a machine its leases."""


class Fault(Enum):
    """What happens to one call."""

    NONE = auto()
    #: Nothing is done, and the caller knows.
    AWAY = auto()
    #: All is done, but the answer is lost.
    LOST_AFTER_COMMIT = auto()
    #: Nothing is done, and the caller does not know.
    LOST_BEFORE_COMMIT = auto()
    #: The answer is lost at once, and the COMMIT is still under way.
    COMMITS_LATER = auto()


@dataclass(slots=True)
class Line:
    """How a machine reaches the database at the moment. `latency_s` is the mean of one way; 0 takes no time at all."""

    latency_s: float = 0.0
    slow_rate: float = 0.0
    fault_rate: float = 0.0
    is_cut: bool = False


@dataclass(slots=True, eq=False)
class _Call:
    machine: Machine
    part: str
    name: str
    args: tuple[object, ...]
    options: Mapping[str, object]
    reply: asyncio.Future[object]
    fault: Fault
    back_s: float
    survives: bool


@dataclass(slots=True)
class SimulatedDatabase:
    """The in-memory storage, with whatever is planted in it, and the ledger that watches it."""

    storage: MemoryStorage
    verdict: Verdict
    ledger: Ledger
    chance: Random
    #: Appends without an answer whose COMMIT is under way, by run.
    late: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)

    async def call(
        self, machine: Machine, line: Line, part: str, name: str, *args: object, **options: object
    ) -> object:
        """Carry an operation out, on behalf of a machine."""
        loop = asyncio.get_running_loop()
        fault = self._fault(line, name)
        there_s, back_s = self._travel(machine, line), self._travel(machine, line)
        survives = self.chance.random() < EVENS
        reply = loop.create_future()
        call = _Call(machine, part, name, args, options, reply, fault, back_s, survives)
        if fault is not Fault.NONE:
            self.ledger.trouble(machine)
        _after(there_s, self._arrive, call)
        return await reply

    def _fault(self, line: Line, name: str) -> Fault:
        if line.is_cut:
            return Fault.AWAY
        if not line.fault_rate or self.chance.random() >= line.fault_rate:
            return Fault.NONE
        faults = [Fault.AWAY]
        if name in WRITES:
            faults += [Fault.LOST_AFTER_COMMIT, Fault.LOST_BEFORE_COMMIT]
        if name == "append":
            faults.append(Fault.COMMITS_LATER)
        return self.chance.choice(faults)

    def _travel(self, machine: Machine, line: Line) -> float:
        if not line.latency_s or self.chance.random() < EVENS:
            return 0.0
        seconds = self.chance.expovariate(1 / line.latency_s)
        if line.slow_rate and self.chance.random() < line.slow_rate:
            seconds += self.chance.uniform(0.5, 8)
        if seconds > SLOW_S:
            self.ledger.trouble(machine)
        return seconds

    def _arrive(self, call: _Call) -> None:
        if call.machine.is_dead and not call.survives:
            return
        if call.fault is Fault.COMMITS_LATER:
            self._commit_later(call)
            return
        if call.name == "positions" and call.options.get("final", True) and (late := self._late_of(call)):
            late[0].add_done_callback(lambda _: self._arrive(call), context=_outside())
            return
        result: object = None
        error: Exception | None = None
        if call.fault is not Fault.AWAY and call.fault is not Fault.LOST_BEFORE_COMMIT:
            result, error = self._carry_out(call)
        if call.fault is not Fault.NONE:
            self.ledger.trouble(call.machine)
            self.verdict.note(f"{call.machine} {call.name}: {call.fault.name}")
            unknown = call.fault is not Fault.AWAY and error is None
            error = error or StorageUnavailableError(call.fault.name, outcome_unknown=unknown)
        if call.back_s > SLOW_S:
            self.ledger.trouble(call.machine)
        if call.back_s:
            _after(call.back_s, _answer, call.reply, result, error)
        else:
            _answer(call.reply, result, error)

    def _commit_later(self, call: _Call) -> None:
        done = asyncio.get_running_loop().create_future()
        for run_id in _runs_of(call):
            self.late.setdefault(run_id, []).append(done)
        self.verdict.note(f"{call.machine} append: COMMITS_LATER")
        error = StorageUnavailableError("COMMITS_LATER", outcome_unknown=True)
        _after(call.back_s, _answer, call.reply, None, error)
        _after(self.chance.uniform(0, 4), self._commit_at_last, call, done)

    def _commit_at_last(self, call: _Call, done: asyncio.Future[None]) -> None:
        self._carry_out(call)
        self.ledger.trouble(call.machine)
        for run_id in _runs_of(call):
            self.late[run_id].remove(done)
        done.set_result(None)

    def _late_of(self, call: _Call) -> list[asyncio.Future[None]]:
        run_ids = cast("Collection[str]", call.args[0])
        return [done for run_id in run_ids for done in self.late.get(run_id, ())]

    def _carry_out(self, call: _Call) -> tuple[object, Exception | None]:
        """Let the operation take effect. The in-memory storage awaits nothing: it is done in one step."""
        before = dict(self.ledger.state.runs) if call.name in {"claim", "claim_run"} else {}
        method: Callable[..., Coroutine[object, None, object]] = getattr(getattr(self.storage, call.part), call.name)
        try:
            result = _in_one_step(method(*call.args, **call.options))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
            self.verdict.note(f"{call.machine} {call.name} → {type(error).__name__}")
            self.verdict.require(isinstance(error, StorageError), f"{call.machine} {call.name}: {error!r}")
            return None, error
        self._tell(call, result, before)
        return result, None

    def _tell(self, call: _Call, result: object, before: Mapping[str, RunRecord]) -> None:  # noqa: C901 - one case each
        """Tell ledger and trace what has taken effect."""
        ledger, note, who = self.ledger, self.verdict.note, call.machine
        match call.name:
            case "accept":
                assert isinstance(result, Accepted)
                new = cast("NewRun", call.args[0])
                ledger.accepted(new, result)
                note(f"{who} accept {result.run.run_id} {new.content!r} {new.conflict} {result.already_existed=}")
            case "append":
                appends = cast("Sequence[Append]", call.args[0])
                outcomes = cast("Sequence[AppendOutcome]", result)
                for append, outcome in zip(appends, outcomes, strict=True):
                    note(f"{who} append {_short(append)} → {outcome}")
                ledger.appended(appends, outcomes, who)
            case "claim":
                for run in cast("Sequence[RunRecord]", result):
                    note(f"{who} claim {run.run_id} epoch {run.epoch} attempt {run.attempt} claims {run.claims}")
                    ledger.claimed(run, before[run.run_id], who, by_queue=True)
            case "claim_run":
                note(f"{who} claim_run {call.args[1]} → {result is not None}")
                if isinstance(result, RunRecord):
                    ledger.claimed(result, before[result.run_id], who, by_queue=False)
            case "release":
                note(f"{who} release {call.args[0]} → {result}")
                if result:
                    ledger.released(cast("str", call.args[0]), who)
            case "request_cancel":
                assert isinstance(result, RunRecord)
                note(f"{who} request_cancel {result.run_id}")
                ledger.cancel_requested(result.run_id)
            case "delete":
                note(f"{who} delete {call.args[1]}")
                ledger.deleted(cast("str", call.args[1]))
            case _:
                note(f"{who} {call.name}")


def _outside() -> contextvars.Context:
    """Return a context that belongs to no machine."""
    return contextvars.Context()


def _after(seconds: float, callback: Callable[[*Ts], object], *args: *Ts) -> None:
    """Call back on the database's side."""
    loop = asyncio.get_running_loop()
    if seconds:
        loop.call_later(seconds, callback, *args, context=_outside())
    else:
        loop.call_soon(callback, *args, context=_outside())


def _answer(reply: asyncio.Future[object], result: object, error: Exception | None) -> None:
    if reply.done():
        return  # nobody waits for it any more
    if error is None:
        reply.set_result(result)
    else:
        reply.set_exception(error)


def _in_one_step(work: Coroutine[object, None, object]) -> object:
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the in-memory storage waited for something")


def _runs_of(call: _Call) -> list[str]:
    return [append.run_id for append in cast("Sequence[Append]", call.args[0])]


def _short(append: Append) -> str:
    seqs = ",".join(str(event.seq) for event in append.events)
    end = f" {append.ending.status}" if append.ending else ""
    return f"{append.run_id} epoch {append.epoch} after {append.after_seq}: {seqs}{end}"


def state_of(storage: MemoryStorage) -> MemoryState:
    """Return the tables themselves: the judge does not ask through the methods that it judges."""
    return storage.runs._state  # noqa: SLF001 - see above


class _Part:
    """One part of `storage.interfaces.Storage` behind a line."""

    def __init__(self, database: SimulatedDatabase, machine: Machine, line: Line, part: str) -> None:
        self._go = partial(database.call, machine, line, part)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        return partial(self._go, name)


class LineStorage:
    """Implements `storage.interfaces.Storage` for one machine."""

    def __init__(self, database: SimulatedDatabase, machine: Machine, line: Line) -> None:
        self._files = database.storage.files
        self._corpora = database.storage.corpora
        self._plans = database.storage.plans
        self._events = cast("EventLog", _Part(database, machine, line, "events"))
        self._runs = cast("Runs", _Part(database, machine, line, "runs"))
        self._threads = cast("Threads", _Part(database, machine, line, "threads"))

    @property
    def events(self) -> EventLog:
        return self._events

    @property
    def runs(self) -> Runs:
        return self._runs

    @property
    def threads(self) -> Threads:
        return self._threads

    @property
    def files(self) -> Files:
        return self._files

    @property
    def corpora(self) -> Corpora:
        return self._corpora

    @property
    def plans(self) -> ActionPlans:
        return self._plans

    async def ping(self) -> None:
        pass

    async def close(self) -> None:
        pass
