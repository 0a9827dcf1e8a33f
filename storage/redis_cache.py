"""A cache in Redis, which all processes of a deployment share. Where Redis does not answer there is no cache."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from storage.interfaces import MAX_CACHED_BYTES

if TYPE_CHECKING:
    from redis.asyncio import Redis

PREFIX: Final = "apex:cache:"
"""Of every key."""

ANSWER_TIME_S: Final = 0.5
"""How long Redis may take to answer, connecting included."""


class RedisCache:
    """Implements `interfaces.Cache` over a `redis://`, `rediss://` or `unix://` address.

    Nothing connects before the first use. Values expire by Redis's own clock, and under its own memory limits.
    """

    def __init__(self, url: str, *, prefix: str = PREFIX, client: Redis | None = None) -> None:
        self._url = url
        self._prefix = prefix
        self._client = client

    async def get(self, key: str) -> bytes | None:
        try:
            async with asyncio.timeout(ANSWER_TIME_S):
                value: object = await self._redis().get(self._prefix + key)
        except Exception as error:  # noqa: BLE001 - whatever it is, a cache does without
            self._missed("get", error)
            return None
        return value if isinstance(value, bytes) else None

    async def set(self, key: str, value: bytes, *, ttl_s: int) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIME_S):
                if ttl_s <= 0 or len(value) > MAX_CACHED_BYTES:
                    await self._redis().delete(self._prefix + key)
                else:
                    await self._redis().set(self._prefix + key, value, ex=ttl_s)
        except Exception as error:  # noqa: BLE001
            self._missed("set", error)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _redis(self) -> Redis:
        if self._client is None:
            from redis.asyncio import Redis

            self._client = Redis.from_url(self._url, socket_connect_timeout=ANSWER_TIME_S, socket_timeout=ANSWER_TIME_S)
        return self._client

    def _missed(self, what: str, error: Exception) -> None:
        # Its own words hold the address, and with it a password perhaps.
        structlog.get_logger("apex.cache").warning("cache_unavailable", what=what, error=type(error).__name__)
