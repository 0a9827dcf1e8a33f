"""A cache in this process's memory: bounded, the least recently used leaves first."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from storage.interfaces import MAX_CACHED_BYTES

MAX_ENTRIES: Final = 1_000
"""Values at once."""

MAX_BYTES: Final = 32 * 1024 * 1024
"""Of all values together, without their keys."""


class MemoryCache:
    """Implements `interfaces.Cache`. `now` returns the current time."""

    def __init__(
        self, now: Callable[[], datetime], *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._now = now
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[datetime, bytes]] = OrderedDict()
        self._bytes = 0

    async def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        expire_time, value = entry
        if self._now() >= expire_time:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    async def set(self, key: str, value: bytes, *, ttl_s: int) -> None:
        self._drop(key)
        if ttl_s <= 0 or len(value) > min(MAX_CACHED_BYTES, self._max_bytes):
            return
        self._entries[key] = (self._now() + timedelta(seconds=ttl_s), value)
        self._bytes += len(value)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    async def close(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _drop(self, key: str) -> None:
        _, value = self._entries.pop(key, (None, b""))
        self._bytes -= len(value)
