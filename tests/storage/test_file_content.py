"""Where content lies: what crashes and failures leave on disk, and PostgreSQL's rows with the disk as their cache."""

import asyncio
import os
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.data_dir import files_path
from storage.database import open_database, sqlite_url
from storage.errors import RecordNotFoundError, StorageUnavailableError
from storage.file_backing import ChunkRows
from storage.files import SqlFiles, open_files
from storage.opening import open_storage
from storage.records import FileRecord
from storage.spool import PIECE_BYTES, Content, ContentDir
from tests.support.storage import an_upload, at, new_id, save_file
from tests.support.waiting import eventually, wait_until

BIG = bytes(range(256)) * 2500


def on_disk(data_dir: Path) -> list[Path]:
    """Return every file below the data directory's folder of files, temporary ones included."""
    return [path for path in files_path(data_dir).rglob("*") if path.is_file()]


async def test_half_an_upload_leaves_nothing(database_url: str, data_dir: Path) -> None:
    storage = await open_storage(database_url, data_dir)
    async with an_upload(storage) as upload:
        await upload.write(BIG)
        assert len(on_disk(data_dir)) == 1
    assert on_disk(data_dir) == []
    await storage.close()


async def test_a_cancelled_upload_leaves_nothing(database_url: str, data_dir: Path) -> None:
    storage = await open_storage(database_url, data_dir)
    writing = asyncio.Event()

    async def upload_for_ever() -> None:
        async with an_upload(storage, max_bytes=1 << 40) as upload:
            while True:
                await upload.write(BIG)
                writing.set()

    uploading = asyncio.create_task(upload_for_ever())
    await writing.wait()
    uploading.cancel()
    await asyncio.wait([uploading])
    assert on_disk(data_dir) == []
    await storage.close()


async def test_an_upload_that_is_cancelled_as_it_begins_leaves_nothing(database_url: str, data_dir: Path) -> None:
    storage = await open_storage(database_url, data_dir)

    async def begin() -> None:
        async with an_upload(storage):
            raise AssertionError("it was cancelled before")

    uploading = asyncio.create_task(begin())
    for _ in range(3):
        await asyncio.sleep(0)  # the task and its thread begin
    wait_until(lambda: bool(on_disk(data_dir)), what="the file is there, and the blocked loop has not heard of it")
    uploading.cancel()
    await asyncio.wait([uploading])
    await eventually(lambda: not on_disk(data_dir), what="the file is removed")
    await storage.close()


async def test_a_cancelled_commit_is_done_all_the_same(database_url: str, data_dir: Path) -> None:
    storage = await open_storage(database_url, data_dir)

    async def upload() -> None:
        async with an_upload(storage) as upload:
            await upload.write(BIG)
            committing.set()
            await upload.commit(at(0))

    committing = asyncio.Event()
    uploading = asyncio.create_task(upload())
    await committing.wait()
    uploading.cancel()
    await asyncio.wait([uploading])
    await storage.close()
    storage = await open_storage(database_url, data_dir)
    (file,) = (await storage.files.list("ada", page_size=9)).items
    assert await asyncio.to_thread((await storage.files.local_path("ada", file.file_id)).read_bytes) == BIG
    await storage.close()


async def test_a_commit_that_fails_leaves_nothing(database_url: str, data_dir: Path) -> None:
    storage = await open_storage(database_url, data_dir)
    first = await save_file(storage, b"first")
    assert len(on_disk(data_dir)) == 1
    taken = storage.files.upload("ada", first.file_id, "again", "text/csv", max_bytes=99)
    async with taken as upload:
        await upload.write(b"second")
        with pytest.raises(IntegrityError):
            await upload.commit(at(0))
    assert len(on_disk(data_dir)) == 1
    assert await storage.files.get("ada", first.file_id) == first
    await storage.close()


async def test_a_failed_commit_of_known_content_leaves_that_alone(database_url: str, data_dir: Path) -> None:
    storage = await open_storage(database_url, data_dir)
    first = await save_file(storage, BIG)
    async with storage.files.upload("ada", first.file_id, "again", "text/csv", max_bytes=1 << 20) as upload:
        await upload.write(BIG)
        with pytest.raises(IntegrityError):
            await upload.commit(at(0))
    assert b"".join([piece async for piece in storage.files.read("ada", first.file_id)]) == BIG
    await storage.close()


async def test_the_same_content_lies_on_disk_once(database_url: str, data_dir: Path) -> None:
    storage = await open_storage(database_url, data_dir)
    files = [await save_file(storage, BIG) for _ in range(3)]
    await save_file(storage, BIG, "bob")
    assert len(on_disk(data_dir)) == 2
    assert {path.stat().st_mode & 0o777 for path in on_disk(data_dir)} == {0o600}
    for file in files:
        await storage.files.delete("ada", file.file_id)
    assert len(on_disk(data_dir)) == 1
    await storage.close()


async def test_the_next_start_removes_what_a_crash_left(data_dir: Path) -> None:
    storage = await open_storage("", data_dir)
    file = await save_file(storage, b"kept")
    await storage.close()
    directory = ContentDir(files_path(data_dir))
    half = directory.open_spool()
    await half.write(BIG)
    orphan = directory.open_spool()
    await orphan.write(b"orphan")
    directory.place(orphan, orphan.seal("ada"))
    assert len(on_disk(data_dir)) == 3
    storage = await open_storage("", data_dir)
    assert on_disk(data_dir) == [await storage.files.local_path("ada", file.file_id)]
    await storage.close()
    half.discard()


async def test_a_disk_that_refuses_is_unavailable(data_dir: Path) -> None:
    storage = await open_storage("", data_dir)
    # A file stands where the folder of files should be.
    files_path(data_dir).write_bytes(b"")
    with pytest.raises(StorageUnavailableError, match="data directory"):
        await save_file(storage, b"content")
    await storage.close()


async def test_an_upload_that_meets_a_deletion_of_its_content_keeps_it(data_dir: Path) -> None:
    database = open_database(sqlite_url(data_dir / "apex.db"))
    files = await open_files(database, files_path(data_dir), embedded=True)
    async with files.upload("ada", new_id(), "first", "text/csv", max_bytes=9) as upload:
        await upload.write(b"content")
        first = await upload.commit(at(0))
    writing, may_go_on = asyncio.Event(), asyncio.Event()

    async def occupy(_connection: AsyncConnection) -> None:
        writing.set()
        await may_go_on.wait()

    occupying = asyncio.create_task(database.write(occupy))
    await writing.wait()
    # The one writer is busy: the deletion waits for it, and the upload, which finds its content on disk, behind it.
    deleting = asyncio.create_task(files.delete("ada", first.file_id))
    # Both pauses only give a wrong implementation the time to go wrong; a right one passes with any.
    await asyncio.wait([deleting], timeout=0.1)
    async with files.upload("ada", new_id(), "second", "text/csv", max_bytes=9) as upload:
        await upload.write(b"content")
        committing = asyncio.create_task(upload.commit(at(0)))
        await asyncio.wait([committing], timeout=0.1)
        may_go_on.set()
        await asyncio.gather(occupying, deleting)
        second = await committing
    assert await asyncio.to_thread((await files.local_path("ada", second.file_id)).read_bytes) == b"content"
    await database.close()


@pytest.mark.postgres
async def test_a_cache_is_trimmed_when_it_grows(migrated_postgres_url: str, tmp_path: Path) -> None:
    database = open_database(migrated_postgres_url)
    files = SqlFiles(database, ContentDir(tmp_path), ChunkRows(database), cache_limit_bytes=1)
    user_id = new_id()

    async def save(content: bytes) -> FileRecord:
        async with files.upload(user_id, new_id(), "data", "text/csv", max_bytes=99) as upload:
            await upload.write(content)
            return await upload.commit(at(0))

    old = await save(b"old")
    path = await files.local_path(user_id, old.file_id)
    os.utime(path, (0, 0))
    new = await save(b"new")
    assert not path.exists()
    # What is fetched back pushes out what has grown old since.
    os.utime(await files.local_path(user_id, new.file_id), (0, 0))
    assert await files.local_path(user_id, old.file_id) == path
    assert [kept.name for kept in ContentDir(tmp_path).contents()] == [old.sha256]
    await database.close()


@pytest.mark.postgres
async def test_other_machines_read_what_one_has_saved(migrated_postgres_url: str, tmp_path: Path) -> None:
    here = await open_storage(migrated_postgres_url, tmp_path / "here")
    there = await open_storage(migrated_postgres_url, tmp_path / "there")
    file = await save_file(here, BIG, user_id := new_id())
    pieces = [piece async for piece in there.files.read(user_id, file.file_id)]
    assert b"".join(pieces) == BIG
    assert [len(piece) for piece in pieces] == [PIECE_BYTES, PIECE_BYTES, len(BIG) - 2 * PIECE_BYTES]
    assert on_disk(tmp_path / "there") == []
    paths = await asyncio.gather(*(there.files.local_path(user_id, file.file_id) for _ in range(4)))
    assert {path.read_bytes() for path in paths} == {BIG}
    assert on_disk(tmp_path / "there") == [paths[0]]
    await here.files.delete(user_id, file.file_id)
    with pytest.raises(RecordNotFoundError):
        await there.files.local_path(user_id, file.file_id)
    await here.close()
    await there.close()


@pytest.mark.postgres
async def test_content_in_postgres_is_its_users_own(migrated_postgres_url: str, tmp_path: Path) -> None:
    storage = await open_storage(migrated_postgres_url, tmp_path)
    files = [await save_file(storage, BIG, user_id) for user_id in (new_id(), new_id())]
    for path in on_disk(tmp_path):
        path.unlink()
    for file in files:
        assert b"".join([piece async for piece in storage.files.read(file.user_id, file.file_id)]) == BIG
    await storage.close()


@pytest.mark.postgres
async def test_a_reader_goes_on_from_the_rows_when_the_cache_is_emptied(
    migrated_postgres_url: str, tmp_path: Path
) -> None:
    storage = await open_storage(migrated_postgres_url, tmp_path)
    file = await save_file(storage, BIG, user_id := new_id())
    reader = aiter(storage.files.read(user_id, file.file_id))
    pieces = [await anext(reader)]
    for path in on_disk(tmp_path):
        path.unlink()
    pieces += [piece async for piece in reader]
    assert b"".join(pieces) == BIG
    await storage.close()


@pytest.mark.postgres
async def test_with_postgres_young_temporary_files_are_left_alone(migrated_postgres_url: str, tmp_path: Path) -> None:
    directory = ContentDir(files_path(tmp_path))
    young, old = directory.open_spool(), directory.open_spool()
    os.utime(old.path, (0, 0))
    storage = await open_storage(migrated_postgres_url, tmp_path)
    assert on_disk(tmp_path) == [young.path]
    await storage.close()
    young.discard()
    old.discard()


async def place(directory: ContentDir, data: bytes, used_at: float) -> Content:
    spool = directory.open_spool()
    await spool.write(data)
    content = spool.seal("ada")
    directory.place(spool, content)
    os.utime(directory.path("ada", content.sha256), (used_at, used_at))
    return content


async def test_a_cache_loses_what_was_used_longest_ago(tmp_path: Path) -> None:
    directory = ContentDir(tmp_path)
    contents = [await place(directory, bytes([number]) * 100, used_at=number) for number in range(4)]
    directory.trim(400, spare_younger_than_s=0)
    assert len(directory.contents()) == 4
    directory.trim(399, spare_younger_than_s=0)
    assert directory.path("ada", contents[0].sha256) not in directory.contents()
    assert len(directory.contents()) == 3
    directory.trim(101, spare_younger_than_s=0)
    assert directory.contents() == [directory.path("ada", contents[3].sha256)]


async def test_a_cache_keeps_what_is_in_use(tmp_path: Path) -> None:
    directory = ContentDir(tmp_path)
    await place(directory, b"old", used_at=1)
    spool = directory.open_spool()
    await spool.write(b"new")
    content = spool.seal("ada")
    directory.place(spool, content)
    directory.trim(0, spare_younger_than_s=60)
    assert directory.contents() == [directory.path("ada", content.sha256)]
