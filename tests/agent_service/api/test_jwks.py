"""Fetching an issuer's key document: bounded in time and size, whatever the issuer does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import pytest

from agent_service.api.jwks import MAX_DOCUMENT_BYTES, fetch_document

Answer: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK: Final = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
PAUSE_S: Final = 0.02
TIMEOUT_S: Final = 0.5


@asynccontextmanager
async def issuer(answer: Answer) -> AsyncIterator[str]:
    """A server on loopback that answers every request with `answer`; gives its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"


def sends(data: bytes) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


def trickles(begin: bytes, *, count: int = 1_000_000) -> Answer:
    """Send so many bytes, each long before the deadline, or until the caller leaves."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        for _ in range(count):
            if reader.at_eof():
                return
            writer.write(b"x")
            await asyncio.sleep(PAUSE_S)

    return answer


@pytest.mark.parametrize("begin", [OK + b"X-Slow: ", OK + b"\r\n"], ids=["in the head", "in the body"])
async def test_an_issuer_that_trickles_has_one_deadline_for_all_of_it(begin: bytes) -> None:
    async with issuer(trickles(begin)) as url:
        with pytest.raises(OSError, match=r"within 0\.5 s"):
            await fetch_document(url, timeout_s=TIMEOUT_S)


async def test_an_issuer_that_trickles_but_is_done_in_time_is_heard() -> None:
    async with issuer(trickles(OK + b"\r\n", count=10)) as url:
        assert await fetch_document(url, timeout_s=100 * TIMEOUT_S) == b"x" * 10


async def test_a_document_may_be_as_large_as_the_limit_and_no_larger() -> None:
    async with issuer(sends(OK + b"\r\n" + b"x" * MAX_DOCUMENT_BYTES)) as url:
        assert await fetch_document(url) == b"x" * MAX_DOCUMENT_BYTES
    async with issuer(sends(OK + b"\r\n" + b"x" * (MAX_DOCUMENT_BYTES + 1))) as url:
        with pytest.raises(OSError, match=f"larger than {MAX_DOCUMENT_BYTES} bytes"):
            await fetch_document(url)


@pytest.mark.parametrize("data", [b"HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\n", b"nonsense\r\n\r\n", b""])
async def test_what_is_no_answer_is_an_error(data: bytes) -> None:
    async with issuer(sends(data)) as url:
        with pytest.raises(OSError, match=r"."):
            await fetch_document(url)


async def test_nobody_there_is_an_error() -> None:
    async with issuer(sends(b"")) as url:
        pass
    with pytest.raises(OSError, match=r"."):
        await fetch_document(url)
