"""Every cache keeps the same promises; each has bounds or failings of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import fakeredis
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from storage.caches import open_cache
from storage.interfaces import MAX_CACHED_BYTES, Cache
from storage.memory_cache import MemoryCache
from storage.redis_cache import ANSWER_TIME_S, RedisCache
from tests.support.storage import ManualClock, new_id

REDIS_URL = "redis://127.0.0.1:6379/0"


@dataclass(frozen=True)
class Subject:
    """A cache, and how its values' time passes: in seconds."""

    cache: Cache
    pass_time: Callable[[str, int], Awaitable[None]]


@pytest.fixture(params=["memory", "redis", "fakeredis"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        clock = ManualClock()

        async def advance(_key: str, seconds: int) -> None:
            clock.advance(seconds)

        yield Subject(MemoryCache(clock.now), advance)
        return
    prefix = f"apex-test:{new_id()}:"
    client = Redis.from_url(REDIS_URL) if request.param == "redis" else fakeredis.FakeAsyncRedis()
    if request.param == "redis":
        try:
            await client.ping()
        except OSError:
            await client.aclose()
            pytest.skip(f"there is no Redis at {REDIS_URL}")

    async def shorten(key: str, seconds: int) -> None:
        # Redis has a clock of its own: what is left of the value's time is made shorter instead.
        left_ms = await client.pttl(prefix + key) - seconds * 1000
        await client.pexpire(prefix + key, max(left_ms, 0))

    cache = RedisCache(REDIS_URL, prefix=prefix, client=client)
    yield Subject(cache, shorten)
    for key in [key async for key in client.scan_iter(f"{prefix}*")]:
        await client.delete(key)
    await cache.close()


async def test_what_is_kept_is_found_until_its_time_is_over(subject: Subject) -> None:
    cache = subject.cache
    assert await cache.get("key") is None
    await cache.set("key", b"\x00value\xff", ttl_s=100)
    await cache.set("other", b"", ttl_s=100)
    assert await cache.get("key") == b"\x00value\xff"
    assert await cache.get("other") == b""
    await subject.pass_time("key", 98)
    assert await cache.get("key") == b"\x00value\xff"
    await subject.pass_time("key", 2)
    assert await cache.get("key") is None


async def test_a_new_value_takes_the_place_and_the_time_of_the_old_one(subject: Subject) -> None:
    cache = subject.cache
    await cache.set("key", b"old", ttl_s=10)
    await cache.set("key", b"new", ttl_s=100)
    await subject.pass_time("key", 50)
    assert await cache.get("key") == b"new"


@pytest.mark.parametrize(
    ("size", "ttl_s", "kept"),
    [(MAX_CACHED_BYTES, 10, True), (MAX_CACHED_BYTES + 1, 10, False), (1, 0, False), (1, 1, True)],
)
async def test_what_is_too_large_or_for_no_time_is_not_kept(
    subject: Subject, size: int, ttl_s: int, *, kept: bool
) -> None:
    await subject.cache.set("key", b"before", ttl_s=10)
    await subject.cache.set("key", b"x" * size, ttl_s=ttl_s)
    assert (await subject.cache.get("key") is not None) is kept


async def test_memory_holds_so_many_values_and_the_least_recently_used_leaves() -> None:
    cache = MemoryCache(ManualClock().now, max_entries=3)
    for key in "abc":
        await cache.set(key, b"x", ttl_s=10)
    assert await cache.get("a") == b"x"
    await cache.set("d", b"x", ttl_s=10)
    assert [key for key in "abcd" if await cache.get(key)] == ["a", "c", "d"]


async def test_memory_holds_so_many_bytes() -> None:
    cache = MemoryCache(ManualClock().now, max_bytes=10)
    await cache.set("a", b"x" * 5, ttl_s=10)
    await cache.set("b", b"x" * 5, ttl_s=10)
    assert await cache.get("a")
    await cache.set("b", b"y" * 5, ttl_s=10)
    assert await cache.get("a")
    await cache.set("c", b"x", ttl_s=10)
    assert [key for key in "abc" if await cache.get(key)] == ["a", "c"]
    await cache.set("d", b"x" * 11, ttl_s=10)
    assert [key for key in "abcd" if await cache.get(key)] == ["a", "c"]


async def test_where_redis_is_away_nothing_is_kept_and_nobody_is_bothered() -> None:
    cache = open_cache("redis://:hush@127.0.0.1:1/0", ManualClock().now)
    with capture_logs() as logs:
        await cache.set("key", b"value", ttl_s=10)
        assert await cache.get("key") is None
        await cache.close()
    assert [log["event"] for log in logs] == ["cache_unavailable", "cache_unavailable"]
    assert "hush" not in str(logs)


async def test_a_redis_that_does_not_answer_is_not_waited_for() -> None:
    silent: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    cache = RedisCache(f"redis://127.0.0.1:{port}/0")
    async with asyncio.timeout(ANSWER_TIME_S * 10):
        assert await cache.get("key") is None
    await cache.close()
    for writer in silent:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_without_an_address_it_is_memory() -> None:
    assert isinstance(open_cache("", ManualClock().now), MemoryCache)
