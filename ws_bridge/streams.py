"""The runs that one socket streams: one stream per run, a cursor each, every event at most once and in order.

Sans-IO. A stream outlives its watch: when the service goes away, `watch_all` starts every stream again after its
cursor. Runs whose end the socket has seen are remembered, so that a repeated message is acked and not streamed again.
"""

from dataclasses import dataclass

from ws_bridge.effects import Effect, Unwatch, WatchRun

MAX_STREAMS = 64
"""Runs that one socket streams at once."""
MAX_FINISHED = 1024
"""Finished runs that one socket remembers; beyond that the oldest is forgotten."""
RETRY_MS = 1000
"""Pause before a watch that the service ended is started again, in milliseconds, if the service names none."""


@dataclass(slots=True)
class _Stream:
    run_id: str
    watch_id: str
    last_seq: int
    retry_at_ms: int | None = None


class Streams:
    """The streams of one socket."""

    def __init__(self) -> None:
        self._by_run: dict[str, _Stream] = {}
        self._by_watch: dict[str, _Stream] = {}
        self._finished: dict[str, None] = {}
        self._watches = 0

    def __len__(self) -> int:
        return len(self._by_run)

    @property
    def full(self) -> bool:
        """True when no other run can be streamed."""
        return len(self._by_run) >= MAX_STREAMS

    def knows(self, run_id: str) -> bool:
        """Tell whether the socket streams the run, or has seen its end."""
        return run_id in self._by_run or run_id in self._finished

    def streams(self, run_id: str) -> bool:
        """Tell whether the socket streams the run now."""
        return run_id in self._by_run

    def start(self, run_id: str, after_seq: int) -> list[Effect]:
        """Stream a run after a cursor; a stream of that run which exists ends. Events of the old watch are dropped."""
        effects: list[Effect] = []
        old = self._by_run.get(run_id)
        if old is not None:
            del self._by_watch[old.watch_id]
            if old.retry_at_ms is None:
                effects.append(Unwatch(old.watch_id))
        self._finished.pop(run_id, None)
        self._by_run[run_id] = stream = _Stream(run_id, "", after_seq)
        effects.append(self._watch(stream))
        return effects

    def take(self, watch_id: str, first_seq: int, count: int, *, terminal: bool) -> int | None:
        """Count events that have arrived, and return how many the socket gets: the last ones of them.

        None for a gap, which means: start the run again. `terminal`: the last of them is the run's last.
        """
        stream = self._by_watch.get(watch_id)
        if stream is None:
            return 0
        if first_seq > stream.last_seq + 1:
            return None
        new = first_seq + count - 1 - stream.last_seq
        if new <= 0:
            return 0
        stream.last_seq += new
        if terminal:
            self._finish(stream)
        return new

    def restart(self, watch_id: str) -> list[Effect]:
        """Start the watch's run again after its cursor."""
        stream = self._by_watch[watch_id]
        return self.start(stream.run_id, stream.last_seq)

    def retry_later(self, watch_id: str, at_ms: int) -> None:
        """The service ended the watch for now: `due` starts it again."""
        stream = self._by_watch.get(watch_id)
        if stream is not None:
            stream.retry_at_ms = at_ms

    def drop(self, watch_id: str) -> str | None:
        """The service ended the watch for good; return its run, or None if the watch is not ours any more."""
        stream = self._by_watch.pop(watch_id, None)
        if stream is None:
            return None
        del self._by_run[stream.run_id]
        return stream.run_id

    def due(self, now_ms: int) -> list[Effect]:
        """Start again what `retry_later` has put off until now."""
        due = [s for s in self._by_run.values() if s.retry_at_ms is not None and now_ms >= s.retry_at_ms]
        for stream in due:
            del self._by_watch[stream.watch_id]
        return [self._watch(stream) for stream in due]

    def watch_all(self) -> list[Effect]:
        """Start every stream after its cursor: the service has forgotten our watches."""
        self._by_watch.clear()
        return [self._watch(stream) for stream in self._by_run.values()]

    def _watch(self, stream: _Stream) -> WatchRun:
        self._watches += 1
        stream.watch_id = str(self._watches)
        stream.retry_at_ms = None
        self._by_watch[stream.watch_id] = stream
        return WatchRun(stream.watch_id, stream.run_id, stream.last_seq)

    def _finish(self, stream: _Stream) -> None:
        del self._by_run[stream.run_id]
        del self._by_watch[stream.watch_id]
        self._finished[stream.run_id] = None
        if len(self._finished) > MAX_FINISHED:
            del self._finished[next(iter(self._finished))]
