"""The limits of one socket, and the counters that hold them. Sans-IO: time is an argument."""

from dataclasses import dataclass
from enum import Enum

WINDOW_MS = 60_000
"""The minute over which frames are counted, in milliseconds."""
FLOOD_FACTOR = 2
"""A socket that sends this many times the permitted frames in a window is closed."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one socket may do. All times in milliseconds."""

    sign_in_ms: int
    open_ms: int
    heartbeat_interval_ms: int
    heartbeat_timeout_ms: int
    idle_ms: int
    max_frames_per_minute: int
    max_frame_bytes: int
    max_pending_frames: int


class Verdict(Enum):
    """What becomes of a frame."""

    OK = "ok"
    OVER = "over"
    FLOOD = "flood"


class FrameCounter:
    """Counts frames in windows of a minute; the first frame after a window opens the next."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._window_ms: int | None = None
        self._count = 0

    def count(self, now_ms: int) -> Verdict:
        """Count one frame."""
        if self._window_ms is None or now_ms - self._window_ms >= WINDOW_MS:
            self._window_ms = now_ms
            self._count = 0
        self._count += 1
        if self._count > self._per_minute * FLOOD_FACTOR:
            return Verdict.FLOOD
        return Verdict.OVER if self._count > self._per_minute else Verdict.OK

    def retry_after_ms(self, now_ms: int) -> int:
        """Return how long the current window still lasts, in milliseconds."""
        return WINDOW_MS if self._window_ms is None else max(self._window_ms + WINDOW_MS - now_ms, 0)


class Heartbeat:
    """When to ping a peer, and when to give it up. A ping has a number; its pong names it."""

    def __init__(self, interval_ms: int, timeout_ms: int, now_ms: int) -> None:
        self._interval_ms = interval_ms
        self._timeout_ms = timeout_ms
        self._number = 0
        self._next_ms = now_ms + interval_ms
        self._unanswered_ms: int | None = None
        self._probe: int | None = None

    def due(self, now_ms: int) -> bool:
        """Tell whether it is time for the next ping."""
        return now_ms >= self._next_ms

    def lost(self, now_ms: int) -> bool:
        """Tell whether a ping has been unanswered for too long."""
        return self._unanswered_ms is not None and now_ms - self._unanswered_ms >= self._timeout_ms

    def ping(self, now_ms: int, *, probe: bool = False) -> int:
        """Count a ping that is sent now; return its number. `probe`: `heard` shall say when it is answered."""
        self._number += 1
        if self._unanswered_ms is None:
            self._unanswered_ms = now_ms
        if probe:
            self._probe = self._number
        else:
            self._next_ms = now_ms + self._interval_ms
        return self._number

    def heard(self, now_ms: int, number: int) -> bool:
        """A pong has arrived; tell whether it answers a probe."""
        self._unanswered_ms = None if number >= self._number else now_ms
        answered = self._probe is not None and number >= self._probe
        if answered:
            self._probe = None
        return answered
