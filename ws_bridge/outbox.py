"""What waits to be written to one socket: bounded in frames and in bytes."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """How much may wait for a socket that reads too slowly."""

    max_frames: int = 10_000
    max_bytes: int = 4 * 1024 * 1024


class Outbox:
    """A queue of frames. Nobody ever waits for it: what does not fit is refused."""

    __slots__ = ("_bytes", "_frames", "_limits")

    def __init__(self, limits: OutboxLimits) -> None:
        self._limits = limits
        self._frames: list[bytes] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frames: Sequence[bytes]) -> bool:
        """Add frames; False, and none of them, if that would be too much. An empty queue takes whatever comes."""
        size = self._bytes + sum(map(len, frames))
        limits = self._limits
        if self._frames and (len(self._frames) + len(frames) > limits.max_frames or size > limits.max_bytes):
            return False
        self._frames += frames
        self._bytes = size
        return True

    def take(self, max_bytes: int) -> Sequence[bytes]:
        """Return what waits, in order: at least one frame, more while they fit into `max_bytes`; none from none."""
        if self._bytes <= max_bytes:
            taken, self._frames, self._bytes = self._frames, [], 0
            return taken
        count, size = 1, len(self._frames[0])
        while count < len(self._frames) and size + len(self._frames[count]) <= max_bytes:
            size += len(self._frames[count])
            count += 1
        taken = self._frames[:count]
        del self._frames[:count]
        self._bytes -= size
        return taken

    def clear(self) -> None:
        """Drop what waits."""
        self._frames, self._bytes = [], 0
