"""A place where callers wait until a test lets them on: synchronisation without sleeping."""

import asyncio
from typing import Final

TIMEOUT_S: Final = 10.0


class Gate:
    """Open at first. While it is closed, who comes to `passage` waits; `reached` tells a test that they are there."""

    def __init__(self, *, is_open: bool = True) -> None:
        self._open = asyncio.Event()
        self._came = asyncio.Event()
        self.arrivals = 0
        if is_open:
            self._open.set()

    @property
    def is_open(self) -> bool:
        """True when whoever comes may go on."""
        return self._open.is_set()

    def close(self) -> None:
        """Let nobody on."""
        self._open.clear()

    def open(self) -> None:
        """Let everybody on, also those who come later."""
        self._open.set()

    async def passage(self) -> None:
        """Come, and go on when the gate is open."""
        self.arrivals += 1
        self._came.set()
        await self._open.wait()

    async def reached(self, arrivals: int = 1) -> None:
        """Wait until so many have come since the beginning. Raises `TimeoutError`."""
        async with asyncio.timeout(TIMEOUT_S):
            while self.arrivals < arrivals:
                self._came.clear()
                await self._came.wait()


async def settle() -> None:
    """Let every task that can go on do so: who has not finished then waits for something that has not happened."""
    for _ in range(20):
        await asyncio.sleep(0)


async def is_stuck(task: "asyncio.Task[object] | asyncio.Task[None]") -> bool:
    """Tell whether the task waits for something that no other task will bring about by itself."""
    await settle()
    return not task.done()
