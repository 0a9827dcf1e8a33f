"""What files promise, on every storage."""

import asyncio
from hashlib import sha256

import pytest

from storage.errors import FileTooLargeError, RecordNotFoundError
from storage.interfaces import Storage
from storage.records import FileRecord
from storage.spool import PIECE_BYTES
from tests.support.storage import an_upload, at, new_id, save_file

BIG = bytes(range(256)) * 2500  # two full pieces and a part


async def content_of(storage: Storage, file: FileRecord) -> bytes:
    return b"".join([piece async for piece in storage.files.read(file.user_id, file.file_id)])


async def local_content_of(storage: Storage, file: FileRecord) -> bytes:
    path = await storage.files.local_path(file.user_id, file.file_id)
    return await asyncio.to_thread(path.read_bytes)


async def test_an_upload_becomes_a_file(storage: Storage) -> None:
    file_id, run_id = new_id(), new_id()
    upload = storage.files.upload(
        "ada", file_id, "chart.svg", "image/svg+xml", max_bytes=99, run_id=run_id, description="Costs by day"
    )
    async with upload:
        await upload.write(b"<svg>")
        await upload.write(b"</svg>")
        file = await upload.commit(at(3))
    digest = sha256(b"<svg></svg>").hexdigest()
    assert file == FileRecord(file_id, "ada", "chart.svg", "image/svg+xml", 11, digest, at(3), run_id, "Costs by day")
    assert await storage.files.get("ada", file_id) == file
    assert await content_of(storage, file) == b"<svg></svg>"
    assert await local_content_of(storage, file) == b"<svg></svg>"


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, len(BIG)])
async def test_content_is_kept_and_read_in_pieces(storage: Storage, size: int) -> None:
    content = BIG[:size]
    async with an_upload(storage) as upload:
        for offset in range(0, size, 100_000):
            await upload.write(content[offset : offset + 100_000])
        file = await upload.commit(at(0))
    assert (file.size_bytes, file.sha256) == (size, sha256(content).hexdigest())
    pieces = [piece async for piece in storage.files.read("ada", file.file_id)]
    assert b"".join(pieces) == content
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    assert await local_content_of(storage, file) == content


async def test_the_limit_is_the_largest_size(storage: Storage) -> None:
    async with an_upload(storage, max_bytes=10) as upload:
        await upload.write(b"12345")
        await upload.write(b"67890")
        file = await upload.commit(at(0))
    assert file.size_bytes == 10


async def test_one_byte_over_the_limit_is_too_much(storage: Storage) -> None:
    async with an_upload(storage, max_bytes=10) as upload:
        await upload.write(b"1234567890")
        with pytest.raises(FileTooLargeError) as refusal:
            await upload.write(b"1")
        assert refusal.value.limit_bytes == 10
        with pytest.raises(FileTooLargeError):
            await upload.commit(at(0))
    assert (await storage.files.list("ada", page_size=9)).items == []


async def test_an_upload_without_commit_keeps_nothing(storage: Storage) -> None:
    async with an_upload(storage) as upload:
        await upload.write(BIG)
    assert (await storage.files.list("ada", page_size=9)).items == []


async def test_an_upload_that_fails_keeps_nothing(storage: Storage) -> None:
    async def fail() -> None:
        async with an_upload(storage) as upload:
            await upload.write(BIG)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert (await storage.files.list("ada", page_size=9)).items == []


async def test_an_upload_is_committed_once(storage: Storage) -> None:
    async with an_upload(storage) as upload:
        await upload.commit(at(0))
        with pytest.raises(RuntimeError):
            await upload.commit(at(0))
        with pytest.raises(RuntimeError):
            await upload.write(b"more")


async def test_an_upload_begins_with_its_context(storage: Storage) -> None:
    with pytest.raises(RuntimeError):
        await an_upload(storage).write(b"early")


async def test_a_file_is_unseen_until_the_commit(storage: Storage) -> None:
    async with an_upload(storage) as upload:
        await upload.write(b"content")
        assert (await storage.files.list("ada", page_size=9)).items == []
        file = await upload.commit(at(0))
        assert await content_of(storage, file) == b"content"


async def test_files_of_others_are_unknown(storage: Storage) -> None:
    file = await save_file(storage, b"content", "ada")
    for user_id, file_id in (("bob", file.file_id), ("ada", new_id())):
        with pytest.raises(RecordNotFoundError):
            await storage.files.get(user_id, file_id)
        with pytest.raises(RecordNotFoundError):
            await storage.files.delete(user_id, file_id)
        with pytest.raises(RecordNotFoundError):
            await storage.files.local_path(user_id, file_id)
        with pytest.raises(RecordNotFoundError):
            await anext(aiter(storage.files.read(user_id, file_id)))
    assert (await storage.files.list("bob", page_size=9)).items == []
    assert await content_of(storage, file) == b"content"


async def test_two_users_with_the_same_content_are_apart(storage: Storage) -> None:
    ada, bob = await save_file(storage, BIG, "ada"), await save_file(storage, BIG, "bob")
    assert await storage.files.local_path("ada", ada.file_id) != await storage.files.local_path("bob", bob.file_id)
    await storage.files.delete("ada", ada.file_id)
    assert await content_of(storage, bob) == BIG
    assert await local_content_of(storage, bob) == BIG


async def test_what_others_keep_does_not_keep_a_users_content(storage: Storage) -> None:
    anns, bobs = [await save_file(storage, b"same", user_id) for user_id in ("ann", "bob")]
    paths = [await storage.files.local_path(file.user_id, file.file_id) for file in (anns, bobs)]
    await storage.files.delete("ann", anns.file_id)
    assert [path.exists() for path in paths] == [False, True]
    assert await content_of(storage, bobs) == b"same"


async def test_the_same_content_is_kept_until_its_last_file_goes(storage: Storage) -> None:
    first, second = await save_file(storage, BIG), await save_file(storage, BIG)
    path = await storage.files.local_path("ada", first.file_id)
    assert await storage.files.local_path("ada", second.file_id) == path
    await storage.files.delete("ada", first.file_id)
    assert await content_of(storage, second) == BIG
    assert await local_content_of(storage, second) == BIG
    await storage.files.delete("ada", second.file_id)
    assert not path.exists()
    with pytest.raises(RecordNotFoundError):
        await storage.files.get("ada", second.file_id)
    again = await save_file(storage, BIG)
    assert await content_of(storage, again) == BIG


async def test_racing_uploads_and_deletions_of_the_same_content(storage: Storage) -> None:
    async def come_and_go() -> None:
        await storage.files.delete("ada", (await save_file(storage, BIG)).file_id)

    async with asyncio.TaskGroup() as group:
        saving = group.create_task(save_file(storage, BIG))
        for _ in range(8):
            group.create_task(come_and_go())
    kept = saving.result()
    assert await content_of(storage, kept) == BIG
    assert await local_content_of(storage, kept) == BIG


async def test_a_reader_is_told_when_the_file_goes(storage: Storage) -> None:
    file = await save_file(storage, BIG)
    reader = aiter(storage.files.read("ada", file.file_id))
    assert await anext(reader) == BIG[:PIECE_BYTES]
    await storage.files.delete("ada", file.file_id)
    with pytest.raises(RecordNotFoundError):
        await anext(reader)


@pytest.mark.parametrize("user_id", ["../ada", "a/b", "", "ä" * 300, "."])
async def test_no_user_id_becomes_a_path(storage: Storage, user_id: str) -> None:
    file = await save_file(storage, b"content", user_id)
    assert await content_of(storage, file) == b"content"
    assert user_id not in (await storage.files.local_path(user_id, file.file_id)).parts[1:]


async def test_files_are_listed_newest_first_by_pages(storage: Storage) -> None:
    files = [await save_file(storage, b"%d" % number, at_s=number // 2) for number in range(5)]
    await save_file(storage, b"other", "bob")
    expected = sorted(files, key=lambda file: (file.create_time, file.file_id), reverse=True)
    first = await storage.files.list("ada", page_size=3)
    second = await storage.files.list("ada", page_size=3, page_token=first.next_page_token)
    assert [*first.items, *second.items] == expected
    assert (len(first.items), second.next_page_token) == (3, "")
