"""What waits to be written to one socket: bounded in frames and in bytes."""

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """How much may wait for a socket that reads too slowly."""

    max_frames: int = 10_000
    max_bytes: int = 4 * 1024 * 1024


class Outbox:
    """A queue with one reader. `put` never waits: it refuses."""

    def __init__(self, limits: OutboxLimits) -> None:
        self._limits = limits
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._wakeup = asyncio.Event()

    def put(self, data: bytes) -> bool:
        """Add a frame; False if that would be too much. An empty queue takes any frame, an ended one drops it."""
        if self._ended:
            return True
        full = len(self._frames) >= self._limits.max_frames or self._bytes + len(data) > self._limits.max_bytes
        if full and self._frames:
            return False
        self._frames.append(data)
        self._bytes += len(data)
        self._wakeup.set()
        return True

    def end(self, *, drop: bool = False) -> None:
        """Let `take` return None after what is queued, or at once."""
        if drop:
            self._frames.clear()
        self._ended = True
        self._wakeup.set()

    async def take(self, max_bytes: int) -> list[bytes]:
        """Return what waits, in order: at least one frame, more while they fit into `max_bytes`; none at the end."""
        while not self._frames:
            if self._ended:
                return []
            self._wakeup.clear()
            await self._wakeup.wait()
        taken = [self._frames.popleft()]
        size = len(taken[0])
        while self._frames and size + len(self._frames[0]) <= max_bytes:
            taken.append(self._frames.popleft())
            size += len(taken[-1])
        self._bytes -= size
        return taken
