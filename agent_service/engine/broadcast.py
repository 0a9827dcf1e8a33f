"""Delivery: a watcher reads the log from its cursor, then gets what is committed from then on.

Every watcher has a queue of its own with a bound. One that does not keep up is told so with its last seq and can come
back with it; nobody else notices, and no run ever waits for a watcher.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, Self, TypeAlias

import structlog

from agent_service.engine.beginnings import Beginnings
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.translation import translated
from storage.errors import StorageUnavailableError
from storage.interfaces import EventLog, Runs
from storage.records import StoredEvent, ThreadRecord

MAX_WATCH_EVENTS: Final = 10_000
"""Events that may wait for one live watcher."""

MAX_WATCH_BYTES: Final = 1024 * 1024
"""Bytes that may wait for one live watcher."""

REPLAY_EVENTS: Final = 1_000
"""Events of one page of a replay."""

REPLAY_BYTES: Final = 256 * 1024
"""Bytes of one page of a replay."""

POLL_INTERVAL_MS: Final = 1_000
"""How often the log is asked for what other processes wrote to runs that are watched here."""

NOT_HERE_MS: Final = 50
"""After how long a new run that nobody here has begun to work on is looked up: another process may be at it."""

MAX_THREAD_CHANGES: Final = 256
"""Thread changes that may wait for one subscriber."""


class ThreadChangeKind(StrEnum):
    """What happened to a thread."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class ThreadChange:
    """A thread of the user came, changed or went."""

    kind: ThreadChangeKind
    thread: ThreadRecord


Sink: TypeAlias = Callable[[Sequence[StoredEvent]], bool]
"""Takes the next events of a run at once, without waiting; false: not now, and none of them."""


class Watch:
    """One watcher of one run: an async iterator of batches, in seq order, each event once, as committed.

    Ends after the terminal event. Raises `ApexError(SLOW_CONSUMER)` with `last_seq` when it fell
    behind. Close it.
    """

    def __init__(self, broadcast: "Broadcast", log: EventLog, user_id: str, run_id: str, after_seq: int) -> None:
        self.run_id = run_id
        self.last_seq = after_seq
        self._broadcast = broadcast
        self._log = log
        self._user_id = user_id
        self._queue: deque[StoredEvent] = deque()
        self._queue_bytes = 0
        self._known_seq = after_seq
        self._live = False
        self._slow = False
        self._finished = False
        self._sink: Sink | None = None
        self._wakeup = asyncio.Event()

    def pass_on_to(self, sink: Sink) -> None:
        """Hand committed events straight to `sink`, whenever nothing else comes before them.

        The iterator yields the rest: what was missed, what the sink does not take, and the end.
        """
        self._sink = sink

    async def __aenter__(self) -> Self:
        """Return the watch."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __aiter__(self) -> Self:
        """Return the watch."""
        return self

    async def __anext__(self) -> Sequence[StoredEvent]:
        """Return the next events: at least one."""
        while True:
            if self._finished:
                raise StopAsyncIteration
            if self._slow:
                raise ApexError(
                    ErrorReason.SLOW_CONSUMER,
                    "This stream was read too slowly. Nothing is lost: watch it again from the last event you saw.",
                    last_seq=self.last_seq,
                )
            batch = self._take_queue() if self._known_seq == self._queued_seq() else await self._read()
            if batch:
                return self._hand_out(batch)
            if self._known_seq == self.last_seq:
                self._live = True
                await self._wakeup.wait()
            self._wakeup.clear()

    def close(self) -> None:
        """Stop. Safe to call twice."""
        self._finished = True
        self._queue.clear()
        self._broadcast.forget(self)
        self._wakeup.set()

    def push(self, events: Sequence[StoredEvent]) -> None:
        """Take committed events, in order. Never waits: what does not fit makes a live watch slow.

        One that has kept up until now is not slow, however much comes at once: it reads this from the log.
        """
        if self._slow or self._finished or self._passes_on(events):
            return
        lags = self._live and bool(self._queue)
        for event in events:
            if event.seq <= self._known_seq:
                continue
            if event.seq == self._queued_seq() + 1:
                self._queue.append(event)
                self._queue_bytes += len(event.data)
            self._known_seq = event.seq
        if len(self._queue) > MAX_WATCH_EVENTS or self._queue_bytes > MAX_WATCH_BYTES:
            self._queue.clear()
            self._queue_bytes = 0
            self._slow = lags
        self._wakeup.set()

    def _passes_on(self, events: Sequence[StoredEvent]) -> bool:
        """Give the events to the sink if they are the very next ones; tell whether it took them."""
        if self._sink is None or self._queue or not events[0].seq - 1 == self.last_seq == self._known_seq:
            return False
        if not self._sink(events):
            return False
        self._known_seq = events[-1].seq
        self._hand_out(events)
        if self._finished:
            self._wakeup.set()
        return True

    def advance(self, seq: int) -> None:
        """The log reaches to `seq`: what is not in the queue is read from it."""
        if seq > self._known_seq:
            self._known_seq = seq
            self._wakeup.set()

    def end_at(self, seq: int) -> None:
        """The run has ended with `seq`: a cursor that stands there gets nothing more."""
        if self.last_seq >= seq:
            self._finished = True

    def _queued_seq(self) -> int:
        """Return the seq up to which the queue continues what was handed out, without a gap."""
        return self._queue[-1].seq if self._queue else self.last_seq

    def _take_queue(self) -> Sequence[StoredEvent]:
        batch, self._queue, self._queue_bytes = self._queue, deque(), 0
        return list(batch)

    async def _read(self) -> Sequence[StoredEvent]:
        """Read the next page of the log, and let go of what of it is queued too."""
        with translated():
            page = await self._log.read(
                self._user_id, self.run_id, self.last_seq, max_events=REPLAY_EVENTS, max_bytes=REPLAY_BYTES
            )
        if not page:
            # Whoever said that the log reaches further has committed before: an empty page is a defect, not a wait.
            raise ApexError(ErrorReason.INTERNAL, "The stream broke off; watch the run again.", last_seq=self.last_seq)
        while self._queue and self._queue[0].seq <= page[-1].seq:
            self._queue_bytes -= len(self._queue.popleft().data)
        if self._queue and self._queue[0].seq != page[-1].seq + 1:
            self._queue.clear()
            self._queue_bytes = 0
        self._known_seq = max(self._known_seq, page[-1].seq)
        return page

    def _hand_out(self, batch: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        if batch[0].seq != self.last_seq + 1:
            raise ApexError(ErrorReason.INTERNAL, "The stream has a gap; watch the run again.", last_seq=self.last_seq)
        self.last_seq = batch[-1].seq
        if batch[-1].terminal:
            self._finished = True
            self._broadcast.forget(self)
        return batch


class ThreadChanges:
    """Changes of one user's threads from now on; an async iterator inside a context."""

    def __init__(self, subscribers: dict[str, set["ThreadChanges"]], user_id: str) -> None:
        self._subscribers = subscribers
        self._user_id = user_id
        self._queue: list[ThreadChange] = []
        self._wakeup = asyncio.Event()
        self._overflowed = False

    def __enter__(self) -> Self:
        """Subscribe."""
        self._subscribers.setdefault(self._user_id, set()).add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unsubscribe."""
        of_user = self._subscribers.get(self._user_id, set())
        of_user.discard(self)
        if not of_user:
            self._subscribers.pop(self._user_id, None)

    def __aiter__(self) -> Self:
        """Return the subscription."""
        return self

    async def __anext__(self) -> ThreadChange:
        """Return the next change. Raises `ApexError(SLOW_CONSUMER)` when too many waited."""
        while not self._queue:
            if self._overflowed:
                raise ApexError(ErrorReason.SLOW_CONSUMER, "Too many changes waited; list the threads again.")
            self._wakeup.clear()
            await self._wakeup.wait()
        return self._queue.pop(0)

    def push(self, change: ThreadChange) -> None:
        """Take a change; past the bound the subscription ends with an error after what is queued."""
        if len(self._queue) >= MAX_THREAD_CHANGES:
            self._overflowed = True
        elif not self._overflowed:
            self._queue.append(change)
        self._wakeup.set()


class Broadcast:
    """All watchers of this process."""

    def __init__(self, log: EventLog, runs: Runs, *, poll_interval_ms: int = POLL_INTERVAL_MS) -> None:
        self._log = log
        self._runs = runs
        self._poll_interval_ms = poll_interval_ms
        self._watches: dict[str, set[Watch]] = {}
        self._beginnings = Beginnings()
        self._subscribers: dict[str, set[ThreadChanges]] = {}
        self._poll_task: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._logger = structlog.get_logger("apex.broadcast")

    @property
    def open_watches(self) -> int:
        """How many watches there are that have neither ended nor been closed."""
        return sum(len(watches) for watches in self._watches.values())

    def start(self) -> None:
        """Start to look for what other processes write."""
        self._poll_task = asyncio.create_task(self._poll(), name="broadcast-poll")

    async def close(self) -> None:
        """Stop looking. Watches end with their owners."""
        self._closed = True
        tasks = [*self._looks, *([self._poll_task] if self._poll_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def watch(self, user: UserExecutionContext, run_id: str, after_seq: int) -> Watch:
        """Watch a run from after `after_seq`. Raises `ApexError` NOT_FOUND or CURSOR_AHEAD.

        Subscribes before it looks at the run: an event committed in between is queued, never missed.
        """
        watch = Watch(self, self._log, user.user_id, run_id, after_seq)
        self._watches.setdefault(run_id, set()).add(watch)
        beginning = self._beginnings.find(user.user_id, run_id)
        if after_seq < len(beginning):
            watch.push(beginning[after_seq:])
            if not self._beginnings.is_worked_on(run_id):
                asyncio.get_running_loop().call_later(NOT_HERE_MS / 1000, self._look_elsewhere, run_id)
            return watch
        try:
            with translated():
                run = await self._runs.get(user.user_id, run_id)
        except BaseException:
            watch.close()
            raise
        if after_seq > run.last_seq:
            watch.close()
            text = f"The run has {run.last_seq} events, the cursor says {after_seq}. Watch it from a smaller one."
            raise ApexError(ErrorReason.CURSOR_AHEAD, text, last_seq=run.last_seq)
        watch.advance(run.last_seq)
        if not run.status.is_open:
            watch.end_at(run.last_seq)
        return watch

    def begin(self, user_id: str, run_id: str, events: Sequence[StoredEvent]) -> None:
        """Take the first events of a run that was just accepted."""
        self._beginnings.begin(user_id, run_id, events)

    def beginning(self, user_id: str, run_id: str) -> Sequence[StoredEvent]:
        """Return the committed events of a run from seq 1 on, as far as they are at hand: perhaps none."""
        return self._beginnings.find(user_id, run_id)

    def publish(self, run_id: str, events: Sequence[StoredEvent]) -> None:
        """Give committed events to the run's watchers."""
        self._beginnings.extend(run_id, events)
        for watch in tuple(self._watches.get(run_id, ())):
            watch.push(events)

    def forget(self, watch: Watch) -> None:
        """Take a watch off the list."""
        watches = self._watches.get(watch.run_id)
        if watches is not None:
            watches.discard(watch)
            if not watches:
                del self._watches[watch.run_id]

    def thread_changes(self, user_id: str) -> ThreadChanges:
        """Return a subscription to the changes of this user's threads that this process makes."""
        return ThreadChanges(self._subscribers, user_id)

    def thread_changed(self, change: ThreadChange) -> None:
        """Tell the user's subscribers."""
        for subscriber in tuple(self._subscribers.get(change.thread.user_id, ())):
            subscriber.push(change)

    def _look_elsewhere(self, run_id: str) -> None:
        if not self._closed and run_id in self._watches and not self._beginnings.is_worked_on(run_id):
            look = asyncio.create_task(self._look((run_id,)), name="broadcast-look")
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_interval_ms / 1000)
            self._beginnings.tick()
            if self._watches:
                await self._look(tuple(self._watches))

    async def _look(self, run_ids: Collection[str]) -> None:
        """Tell the watches how far the log reaches. A failure is only noted: the next look comes by itself."""
        try:
            # Without locks: a row that somebody holds must not hold up the appends to all the others.
            positions = await self._log.positions(run_ids, final=False)
        except StorageUnavailableError as error:
            self._logger.warning("poll_failed", error=str(error))
            return
        except Exception:
            self._logger.exception("poll_failed")
            return
        for run_id in run_ids:
            position = positions.get(run_id)
            for watch in tuple(self._watches.get(run_id, ())):
                if position is None:
                    watch.advance(watch.last_seq + 1)
                else:
                    watch.advance(position.last_seq)
