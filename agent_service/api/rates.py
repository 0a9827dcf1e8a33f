"""How many messages a user may send in a minute."""

import time
from typing import Final

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from agent_service.engine.errors import ApexError, ErrorReason

WINDOW_MS: Final = 60_000
"""No wait is longer than the window."""


class MessageRates:
    """Counts messages by user over a sliding minute."""

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def count(self, user_id: str) -> None:
        """Count one message. Raises `ApexError(RATE_LIMITED)` with the time to wait."""
        if await self._limiter.hit(self._item, "messages", user_id):
            return
        stats = await self._limiter.get_window_stats(self._item, "messages", user_id)
        wait_ms = min(max(int((stats.reset_time - time.time()) * 1000), 1), WINDOW_MS)
        text = f"At most {self._item.amount} messages a minute. Wait a moment, then send it again."
        raise ApexError(ErrorReason.RATE_LIMITED, text, retry_after_ms=wait_ms)
