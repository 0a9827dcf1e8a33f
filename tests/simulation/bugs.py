"""Bugs to plant in the product, for as long as a context lasts. A simulation that does not find one is too weak.

They are put in at seams that stay: public methods, the in-memory tables, the storage that a class is given. Not here is
what cannot be seen from outside, because something else makes up for it:

- a log that does not compare `last_seq`: under one epoch nobody writes twice, unless the journal is broken too (both
  together are here);
- a log that is read without its owner: a watch has looked the run up, with its owner, before it reads;
- a run that is taken up without taking its partial text back: the end takes it back;
- an acceptance that wakes no worker, a claim that overlooks a cancellation: the next look and the next beat make up
  for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final, cast
from unittest import mock

from agent_service.engine import attempt, broadcast
from agent_service.engine.attempt import Job, Stop
from agent_service.engine.broadcast import Broadcast, Watch
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.emitter import RunEmitter
from agent_service.engine.events import AgentProgress, Body, Event, ProgressStage
from agent_service.engine.journal import Deliver, Journal, RunWriter
from agent_service.engine.run import SUPERVISOR, RunState
from agent_service.engine.threads import Threads
from agent_service.engine.worker import Worker
from storage import memory_runs
from storage.errors import StorageUnavailableError
from storage.interfaces import EventLog, Runs
from storage.memory import MemoryEventLog
from storage.memory_runs import MemoryRuns
from storage.memory_state import MemoryState
from storage.records import (
    Accepted,
    Append,
    AppendOutcome,
    Beat,
    NewRun,
    Page,
    RunRecord,
    StoredEvent,
    ThreadConflict,
    ThreadRecord,
)

Planting = AbstractContextManager[object]
Plant = Callable[[], Planting]
Appending = Callable[[Sequence[Append]], Awaitable[Sequence[AppendOutcome]]]

BUGS: Final[dict[str, Plant]] = {}
"""By name: what plants it."""


def bug(plant: Plant) -> Plant:
    """Add a bug to the table, under the name of its function in words."""
    BUGS[plant.__name__.replace("_", " ")] = plant
    return plant


class _Front:
    """Something in front of another thing, with a few methods of its own."""

    def __init__(self, inner: object, **own: object) -> None:
        self._inner = inner
        self._own = own

    def __getattr__(self, name: str) -> object:
        return self._own[name] if name in self._own else getattr(self._inner, name)


def _log_appends(change: Callable[[Appending, Sequence[Append]], Awaitable[Sequence[AppendOutcome]]]) -> Planting:
    """Change how the tables take events; `change` is given what takes them rightly."""
    rightly = MemoryEventLog.append

    async def append(self: MemoryEventLog, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        return await change(lambda right: rightly(self, right), appends)

    return mock.patch.object(MemoryEventLog, "append", append)


def _journal_appends(
    change: Callable[[Appending, Deliver, Sequence[Append]], Awaitable[Sequence[AppendOutcome]]],
) -> Planting:
    """Change how the journal speaks to its log."""
    rightly = Journal.__init__

    def init(self: Journal, log: EventLog, deliver: Deliver) -> None:
        async def append(appends: Sequence[Append]) -> Sequence[AppendOutcome]:
            return await change(log.append, deliver, appends)

        rightly(self, cast("EventLog", _Front(log, append=append)), deliver)

    return mock.patch.object(Journal, "__init__", init)


def _accepts(change: Callable[[NewRun], NewRun]) -> Planting:
    """Change what is accepted in place of what was sent."""
    rightly = MemoryRuns.accept

    async def accept(self: MemoryRuns, new: NewRun) -> Accepted:
        return await rightly(self, change(new))

    return mock.patch.object(MemoryRuns, "accept", accept)


def _beats(change: Callable[[Runs, str, Mapping[str, int], int], Awaitable[object]]) -> Planting:
    """Change what a worker does in place of a beat, and let it believe that it holds everything."""
    rightly = Worker.__init__

    def init(self: Worker, runs: Runs, *args: object, **options: object) -> None:
        async def beat(worker_id: str, epochs: Mapping[str, int], *, lease_ms: int) -> Sequence[Beat]:
            await change(runs, worker_id, epochs, lease_ms)
            return [Beat(run_id, held=True, cancel_reason=None) for run_id in epochs]

        cast("Callable[..., None]", rightly)(self, _Front(runs, beat=beat), *args, **options)

    return mock.patch.object(Worker, "__init__", init)


def _instead(owner: object, name: str, value: object) -> Planting:
    return mock.patch.object(owner, name, value)


async def _nothing(*_: object, **__: object) -> None:
    pass


# ---- The log and the runs table ----


@bug
def no_fencing_check() -> Planting:
    rightly = MemoryEventLog.append

    async def append(self: MemoryEventLog, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        found = await self.positions([one.run_id for one in appends])
        return await rightly(
            self, [replace(one, epoch=found[one.run_id].epoch) if one.run_id in found else one for one in appends]
        )

    return _instead(MemoryEventLog, "append", append)


@bug
def a_claim_does_not_raise_the_epoch() -> Planting:
    rightly = MemoryRuns.claim

    async def claim(self: MemoryRuns, worker_id: str, *, lease_ms: int, limit: int) -> Sequence[RunRecord]:
        claimed = await rightly(self, worker_id, lease_ms=lease_ms, limit=limit)
        return [self._save(replace(run, epoch=run.epoch - 1)) if run.epoch > 1 else run for run in claimed]

    return _instead(MemoryRuns, "claim", claim)


@bug
def a_claim_overlooks_the_lease() -> Planting:
    return _instead(MemoryRuns, "_is_held", lambda *_: False)


@bug
def a_thread_works_on_two_runs() -> Planting:
    def ranked(self: MemoryRuns) -> Sequence[RunRecord]:
        return [run for run in self._state.runs.values() if run.end_time is None and not self._is_held(run)]

    return _instead(MemoryRuns, "_ranked_claimable", ranked)


@bug
def no_look_for_the_idempotency_key() -> Planting:
    return _instead(MemoryRuns, "_find", lambda *_: None)


@bug
def no_check_of_the_fingerprint() -> Planting:
    return _instead(memory_runs, "check_fingerprint", lambda *_: None)


@bug
def runs_without_owner() -> Planting:
    rightly = MemoryState.run

    def run(self: MemoryState, user_id: str, run_id: str) -> RunRecord:
        return rightly(self, self.runs[run_id].user_id if run_id in self.runs else user_id, run_id)

    return _instead(MemoryState, "run", run)


@bug
def threads_without_owner() -> Planting:
    rightly = MemoryState.thread

    def thread(self: MemoryState, user_id: str, thread_id: str) -> ThreadRecord:
        return rightly(self, self.threads[thread_id].user_id if thread_id in self.threads else user_id, thread_id)

    return _instead(MemoryState, "thread", thread)


@bug
def a_list_of_everybodys_runs() -> Planting:
    async def listed(self: MemoryRuns, *_: object, **__: object) -> Page[RunRecord]:
        return Page(list(self._state.runs.values()))

    return _instead(MemoryRuns, "list", listed)


@bug
def an_ending_without_message() -> Planting:
    def without(one: Append) -> Append:
        return replace(one, ending=replace(one.ending, message=None)) if one.ending else one

    return _log_appends(lambda rightly, appends: rightly([without(one) for one in appends]))


@bug
def an_ending_without_status() -> Planting:
    return _log_appends(lambda rightly, appends: rightly([replace(one, ending=None) for one in appends]))


@bug
def rollback_does_not_supersede() -> Planting:
    return _accepts(
        lambda new: replace(new, conflict=ThreadConflict.INTERRUPT) if new.conflict is ThreadConflict.ROLLBACK else new
    )


@bug
def interrupt_does_not_interrupt() -> Planting:
    return _accepts(
        lambda new: replace(new, conflict=ThreadConflict.ENQUEUE) if new.conflict is ThreadConflict.INTERRUPT else new
    )


@bug
def reject_does_not_reject() -> Planting:
    return _accepts(
        lambda new: replace(new, conflict=ThreadConflict.ENQUEUE) if new.conflict is ThreadConflict.REJECT else new
    )


@bug
def a_release_keeps_the_lease() -> Planting:
    async def release(*_: object) -> bool:
        return True

    return _instead(MemoryRuns, "release", release)


# ---- The journal and the emitter ----


@bug
def delivery_before_the_commit() -> Planting:
    async def append(rightly: Appending, deliver: Deliver, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        for one in appends:
            deliver(one.run_id, one.events)
        return await rightly(appends)

    return _journal_appends(append)


async def _as_if_known(rightly: Appending, _: Deliver, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
    try:
        return await rightly(appends)
    except StorageUnavailableError as error:
        raise StorageUnavailableError(str(error)) from error


@bug
def no_look_at_the_position_after_an_unknown_outcome() -> Planting:
    return _journal_appends(_as_if_known)


@bug
@contextmanager
def neither_that_nor_a_check_of_the_position() -> Iterator[None]:
    rightly = MemoryEventLog.append

    def moved(one: Append, last_seq: int) -> Append:
        events = [replace(event, seq=seq) for seq, event in enumerate(one.events, last_seq + 1)]
        return replace(one, after_seq=last_seq, events=events)

    async def append(self: MemoryEventLog, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        found = await self.positions([one.run_id for one in appends])
        return await rightly(
            self, [moved(one, found[one.run_id].last_seq) if one.run_id in found else one for one in appends]
        )

    with _journal_appends(_as_if_known), _instead(MemoryEventLog, "append", append):
        yield


@bug
def fencing_is_ignored() -> Planting:
    async def append(rightly: Appending, _: Deliver, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        return [AppendOutcome.APPENDED for _ in await rightly(appends)]

    return _journal_appends(append)


@bug
def one_fenced_run_takes_the_others_with_it() -> Planting:
    async def append(rightly: Appending, _: Deliver, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        outcomes = await rightly(appends)
        return [AppendOutcome.FENCED] * len(outcomes) if AppendOutcome.FENCED in outcomes else outcomes

    return _journal_appends(append)


@bug
def an_ending_in_two_transactions() -> Planting:
    async def append(rightly: Appending, _: Deliver, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        outcomes = await rightly([replace(one, ending=None) for one in appends])
        rest = [replace(one, after_seq=one.events[-1].seq, events=(), checkpoint=None) for one in appends if one.ending]
        if rest:
            await rightly(rest)
        return outcomes

    return _journal_appends(append)


@bug
def an_ending_without_its_event() -> Planting:
    async def append(rightly: Appending, _: Deliver, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        return await rightly([replace(one, events=one.events[:-1]) if one.ending else one for one in appends])

    return _journal_appends(append)


@bug
def a_lost_commit_is_not_told() -> Planting:
    return _instead(RunWriter, "failed", lambda *_: None)


@bug
def a_cancelled_emit_takes_a_seq() -> Planting:
    rightly = RunEmitter.emit

    async def emit(self: RunEmitter, agent_name: str, body: Body) -> None:
        try:
            await rightly(self, agent_name, body)
        except asyncio.CancelledError:
            self.state.last_seq += 1
            raise

    return _instead(RunEmitter, "emit", emit)


@bug
def a_failure_is_not_emitted() -> Planting:
    return _instead(RunEmitter, "fail", _nothing)


@bug
def a_cancellation_is_not_emitted() -> Planting:
    return _instead(RunEmitter, "cancel", _nothing)


# ---- Delivery ----


@bug
@contextmanager
def a_watch_reads_before_it_subscribes() -> Iterator[None]:
    push, advance = Watch.push, Watch.advance
    subscribed: set[Watch] = set()

    def late_push(self: Watch, events: Sequence[StoredEvent]) -> None:
        if self in subscribed:
            push(self, events)

    def first_advance(self: Watch, seq: int) -> None:
        subscribed.add(self)
        advance(self, seq)

    with _instead(Watch, "push", late_push), _instead(Watch, "advance", first_advance):
        yield


@bug
def a_watch_overlooks_gaps() -> Planting:
    rightly = Watch.push

    def push(self: Watch, events: Sequence[StoredEvent]) -> None:
        self.last_seq = max(self.last_seq, events[0].seq - 1)
        rightly(self, events)

    return _instead(Watch, "push", push)


@bug
def a_watch_never_reads_the_log() -> Planting:
    return _instead(Watch, "advance", lambda *_: None)


@bug
def a_watch_does_not_know_that_the_run_has_ended() -> Planting:
    return _instead(Watch, "end_at", lambda *_: None)


@bug
def the_last_event_of_a_commit_is_not_published() -> Planting:
    rightly = Broadcast.publish

    def publish(self: Broadcast, run_id: str, events: Sequence[StoredEvent]) -> None:
        if events[:-1]:
            rightly(self, run_id, events[:-1])

    return _instead(Broadcast, "publish", publish)


@bug
def nobody_looks_for_what_other_processes_write() -> Planting:
    return _instead(Broadcast, "start", lambda _: None)


@bug
def a_watchers_queue_has_no_bound() -> Planting:
    return _instead(broadcast, "MAX_WATCH_EVENTS", 1 << 30)


@bug
def a_watcher_is_slow_too_soon() -> Planting:
    return _instead(broadcast, "MAX_WATCH_EVENTS", 1)


# ---- The worker ----


@bug
def a_beat_is_ignored() -> Planting:
    return _beats(lambda runs, worker_id, epochs, lease_ms: runs.beat(worker_id, epochs, lease_ms=lease_ms))


@bug
def no_beat_is_sent() -> Planting:
    return _beats(_nothing)


@bug
def a_drain_leaves_runs_behind() -> Planting:
    rightly = Job.interrupt

    def interrupt(self: Job, stop: Stop, reason: str = "") -> None:
        if stop is not Stop.HANDOVER:
            rightly(self, stop, reason)
        elif self.task is not None:
            self.task.cancel()

    return _instead(Job, "interrupt", interrupt)


@bug
def a_cancelled_run_waits_for_its_turn() -> Planting:
    return _instead(Worker, "cancel", _nothing)


@bug
def lost_runs_are_tried_for_ever() -> Planting:
    return _instead(attempt, "MAX_CLAIMS", 1 << 30)


@bug
def an_unsafe_call_is_repeated() -> Planting:
    def resume(self: RunState, now: datetime) -> list[Event]:
        return [self.next(now, SUPERVISOR, AgentProgress(ProgressStage.RESUMED, discard_partial=bool(self.text)))]

    return _instead(RunState, "resume", resume)


@bug
def a_thread_is_deleted_under_its_runs() -> Planting:
    async def delete(self: Threads, user: UserExecutionContext, thread_id: str) -> None:
        await self.get(user, thread_id)
        await self._threads.delete(user.user_id, thread_id)

    return _instead(Threads, "delete", delete)
