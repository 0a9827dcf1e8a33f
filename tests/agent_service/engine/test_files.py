"""Files as callers see them: whole or not at all, and every error in words."""

from collections.abc import AsyncIterator

import pytest

from agent_service.engine.clock import SystemClock, SystemIds
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.files import Files
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from tests.support.workshop import ANN, BOB

LIMIT = 10


@pytest.fixture
def files(storage: Storage) -> Files:
    return Files(storage.files, SystemClock(), SystemIds(), max_upload_bytes=LIMIT)


async def pieces(*content: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece
    if error is not None:
        raise error


async def test_a_file_is_uploaded_read_listed_and_deleted(files: Files) -> None:
    record = await files.upload(ANN, "a.csv", "text/csv", pieces(b"01234", b"56789"))
    assert (record.name, record.media_type, record.size_bytes) == ("a.csv", "text/csv", LIMIT)
    assert b"".join([piece async for piece in files.read(ANN, record.file_id)]) == b"0123456789"
    assert (await files.list(ANN, page_size=9, page_token="")).items == [record]
    assert await files.get(ANN, record.file_id) == record
    await files.delete(ANN, record.file_id)
    assert not (await files.list(ANN, page_size=9, page_token="")).items


async def test_one_byte_too_many_leaves_nothing(files: Files) -> None:
    with pytest.raises(ApexError) as caught:
        await files.upload(ANN, "a.csv", "text/csv", pieces(b"01234", b"567890"))
    assert caught.value.reason is ErrorReason.MESSAGE_TOO_LARGE
    assert f"larger than {LIMIT} bytes" in caught.value.message
    assert not (await files.list(ANN, page_size=9, page_token="")).items


async def test_an_upload_that_breaks_off_leaves_nothing(files: Files) -> None:
    with pytest.raises(ConnectionResetError):
        await files.upload(ANN, "a.csv", "text/csv", pieces(b"01", error=ConnectionResetError()))
    assert not (await files.list(ANN, page_size=9, page_token="")).items


async def test_a_file_of_somebody_else_is_not_found(files: Files) -> None:
    record = await files.upload(ANN, "a.csv", "text/csv", pieces(b"01"))

    async def read() -> None:
        async for _ in files.read(BOB, record.file_id):
            pass

    for call in (files.get(BOB, record.file_id), files.delete(BOB, record.file_id), read()):
        with pytest.raises(ApexError) as caught:
            await call
        assert caught.value.reason is ErrorReason.NOT_FOUND


async def test_a_wrong_page_token_is_named(memory: MemoryStorage) -> None:
    files = Files(memory.files, SystemClock(), SystemIds(), max_upload_bytes=LIMIT)
    with pytest.raises(ApexError) as caught:
        await files.list(ANN, page_size=9, page_token="nonsense")
    assert caught.value.violations[0].field == "page_token"
