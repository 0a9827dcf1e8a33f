"""Which cache a deployment uses: this process's memory, or the Redis that all its processes share."""

from collections.abc import Callable
from datetime import datetime

from storage.interfaces import Cache
from storage.memory_cache import MemoryCache
from storage.redis_cache import RedisCache


def open_cache(redis_url: str, now: Callable[[], datetime]) -> Cache:
    """Return the cache; an empty address means memory. `now` returns the current time."""
    return RedisCache(redis_url) if redis_url else MemoryCache(now)
