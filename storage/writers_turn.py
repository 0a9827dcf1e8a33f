"""Whose turn it is to write to a database that has one writer; in order of arrival."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from storage.errors import StorageUnavailableError


class WritersTurn:
    """One at a time. Whoever has begun must `end`."""

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s`: after how long somebody who waits gives up."""
        self._timeout_s = timeout_s
        self._taken = False
        self._waiting: deque[Callable[[], None]] = deque()

    def ask(self, begin: Callable[[], None], give_up: Callable[[StorageUnavailableError], None]) -> None:
        """Call `begin` as soon as it is the caller's turn, at once if nobody else has it; else, too late, `give_up`."""
        if not self._taken:
            self._taken = True
            begin()
            return

        def begin_in_time() -> None:
            timer.cancel()
            begin()

        def expire() -> None:
            self._waiting.remove(begin_in_time)
            give_up(StorageUnavailableError("the database is busy with another transaction"))

        timer = asyncio.get_running_loop().call_later(self._timeout_s, expire)
        self._waiting.append(begin_in_time)

    def end(self) -> None:
        """Give the turn to whoever has waited longest."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._taken = False

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Hold the turn. Raises `StorageUnavailableError` when it does not come in time."""
        came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ask(lambda: self._begin(came), came.set_exception)
        await came
        try:
            yield
        finally:
            self.end()

    def _begin(self, came: asyncio.Future[None]) -> None:
        if came.done():  # whoever waited was cancelled
            self.end()
        else:
            came.set_result(None)
