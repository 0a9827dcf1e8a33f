"""What waits to be sent to one gateway."""

import asyncio
import heapq
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Final

MAX_RESPONSE_BYTES: Final = 1024 * 1024
"""A response takes what is ready up to about here: one frame more never makes it as large as gRPC's 4 MiB."""

MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
"""Beyond this the gateway's own requests wait, so that a gateway that does not read cannot fill the memory."""


class Outbox:
    """Frames in order. `take` returns whatever is ready, and waits for nothing but the first frame."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._put_bytes = 0
        self._taken_bytes = 0
        self._ready = asyncio.Event()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()

    @property
    def put_bytes(self) -> int:
        """How many bytes were ever put; a position in what is sent."""
        return self._put_bytes

    def has_taken(self, position: int) -> bool:
        """Tell whether all up to a position was taken."""
        return self._taken_bytes >= position

    def put(self, frame: bytes) -> None:
        """Add a frame."""
        self._frames.append(frame)
        self._put_bytes += len(frame)
        self._ready.set()

    async def deliver(self, frames: Iterable[bytes]) -> None:
        """Add frames and return when all of them were taken: whoever delivers so never has more than these waiting."""
        for frame in frames:
            self.put(frame)
        await self._until_taken(self._put_bytes)

    async def room(self) -> None:
        """Return when no more than `MAX_WAITING_BYTES` wait."""
        await self._until_taken(self._put_bytes - MAX_WAITING_BYTES)

    async def flushed(self) -> None:
        """Return when everything that was put until now was taken."""
        await self._until_taken(self._put_bytes)

    async def take(self) -> bytes:
        """Return the next response, encoded: at least one frame."""
        await self._ready.wait()
        taken: list[bytes] = []
        size = 0
        while self._frames and size < MAX_RESPONSE_BYTES:
            taken.append(self._frames.popleft())
            size += len(taken[-1])
        if not self._frames:
            self._ready.clear()
        self._taken_bytes += size
        self._wake()
        return b"".join(taken)

    async def _until_taken(self, position: int) -> None:
        if self._taken_bytes >= position:
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (position, next(self._order), future))
        await future

    def _wake(self) -> None:
        while self._waiters and self._waiters[0][0] <= self._taken_bytes:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)
