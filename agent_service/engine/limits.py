"""Limits of tool use per user, shared by all runs of this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

MAX_TOOLS_AT_ONCE: Final = 10
"""Tool calls of one user that run at the same time; further ones wait."""

MAX_TOOLS_PER_MINUTE: Final = 100
"""Tool calls of one user that begin within 60 s; further ones are refused."""


class ToolLimits:
    """Counts tool calls by user."""

    def __init__(self, *, at_once: int = MAX_TOOLS_AT_ONCE, per_minute: int = MAX_TOOLS_PER_MINUTE) -> None:
        self._at_once = at_once
        self._per_minute = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    async def permits(self, user_id: str) -> bool:
        """Count one call; False when the user has used up the minute."""
        return await self._limiter.hit(self._per_minute, "tools", user_id)

    @asynccontextmanager
    async def slot(self, user_id: str) -> AsyncIterator[None]:
        """Hold one of the user's places while the body runs; wait for it when all are taken."""
        semaphore = self._slots.setdefault(user_id, asyncio.Semaphore(self._at_once))
        self._users[user_id] = self._users.get(user_id, 0) + 1
        try:
            async with semaphore:
                yield
        finally:
            self._users[user_id] -= 1
            if not self._users[user_id]:
                del self._users[user_id], self._slots[user_id]
