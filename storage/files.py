"""Files of users: records in the database, content on disk and, with PostgreSQL, in rows as well."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from weakref import WeakValueDictionary

from sqlalchemy import ColumnElement, and_, delete, exists, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.errors import RecordNotFoundError, StorageUnavailableError
from storage.file_backing import Backing, ChunkRows, NoBacking
from storage.paging import SortKey, cut_page, read_token
from storage.records import FileRecord, Page
from storage.rows import file_record
from storage.schema import file_contents, files, from_microseconds, to_microseconds
from storage.spool import PIECE_BYTES, Content, ContentDir, Spool, disk_failed, read_piece
from storage.upload import NewFile, SpooledUpload

#: How much content the data directory keeps as a cache of PostgreSQL, and for how long at least after its last use.
CACHE_LIMIT_BYTES = 8 * 1024**3
CACHE_SPARE_S = 3_600
#: Temporary files of a shared directory are left alone for this long: another process may be writing them.
LEFTOVER_AGE_S = 86_400


class SqlFiles:
    """Implements `storage.interfaces.Files`."""

    def __init__(
        self, database: Database, directory: ContentDir, backing: Backing, cache_limit_bytes: int | None
    ) -> None:
        """`cache_limit_bytes` None: the directory is no cache, and keeps everything."""
        self._database = database
        self._directory = directory
        self._backing = backing
        self._cache_limit_bytes = cache_limit_bytes
        # One lock per content that somebody changes right now, so that its rows and its file on disk agree.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def upload(
        self,
        user_id: str,
        file_id: str,
        name: str,
        media_type: str,
        *,
        max_bytes: int,
        run_id: str | None = None,
        description: str = "",
    ) -> SpooledUpload:
        return SpooledUpload(self, NewFile(user_id, file_id, name, media_type, max_bytes, run_id, description))

    async def get(self, user_id: str, file_id: str) -> FileRecord:
        return await self._database.read(lambda connection: _get(connection, user_id, file_id))

    async def list(self, user_id: str, *, page_size: int, page_token: str = "") -> Page[FileRecord]:
        listing = ("files", user_id)
        query = select(files).where(files.c.user_id == user_id)
        if after := read_token(page_token, *listing):
            moment, last_id = after
            query = query.where(tuple_(files.c.create_time, files.c.id) < (from_microseconds(moment), last_id))
        query = query.order_by(files.c.create_time.desc(), files.c.id.desc()).limit(page_size + 1)
        rows = await self._database.read(lambda connection: connection.execute(query))
        return cut_page([file_record(row) for row in rows], page_size, _sort_key, *listing)

    async def delete(self, user_id: str, file_id: str) -> None:
        await self._database.finish(self._delete(await self.get(user_id, file_id)))

    async def read(self, user_id: str, file_id: str) -> AsyncIterator[bytes]:
        record = await self.get(user_id, file_id)
        offset = 0
        while offset < record.size_bytes:
            piece = await self._piece(record, offset)
            yield piece
            offset += len(piece)

    async def local_path(self, user_id: str, file_id: str) -> Path:
        record = await self.get(user_id, file_id)
        path = self._directory.path(user_id, record.sha256)
        try:
            # The time of the last use, by which the cache is trimmed.
            await asyncio.to_thread(os.utime, path)
        except FileNotFoundError:
            await self._database.finish(self._fetch(record))
        return path

    def open_spool(self) -> Spool:
        """Begin a temporary file. Blocks: call it in a thread."""
        return self._directory.open_spool()

    async def keep(self, spool: Spool, new: NewFile, create_time: datetime) -> FileRecord:
        """Make what the spool took a file of the user; the spool is gone afterwards, whatever happens."""
        return await self._database.finish(self._keep(spool, new, create_time))

    async def _keep(self, spool: Spool, new: NewFile, create_time: datetime) -> FileRecord:
        try:
            content = await asyncio.to_thread(spool.seal, new.user_id)
            record = new.record(content, create_time)
            async with self._lock(content.user_id, content.sha256):
                # On disk first: a record never points to content that a crash took away.
                was_new = await asyncio.to_thread(self._directory.place, spool, content)
                try:
                    await self._database.write(
                        lambda connection: self._insert(connection, record, content), is_bulk=True
                    )
                except Exception as error:
                    unknown = isinstance(error, StorageUnavailableError) and error.outcome_unknown
                    if was_new and not unknown:
                        await asyncio.to_thread(self._directory.remove, content.user_id, content.sha256)
                    raise
            await self._trim()
            return record
        except OSError as error:
            raise disk_failed(error) from error
        finally:
            await asyncio.to_thread(spool.discard)

    async def _insert(self, connection: AsyncConnection, record: FileRecord, content: Content) -> None:
        await self._database.dialect.serialise(connection, "content", content.user_id, content.sha256)
        known = select(exists().where(_is_content(content.user_id, content.sha256)))
        if not (await connection.execute(known)).scalar_one():
            await connection.execute(
                insert(file_contents).values(
                    user_id=content.user_id, sha256=content.sha256, size_bytes=content.size_bytes
                )
            )
            await self._backing.save(connection, content, self._directory.path(content.user_id, content.sha256))
        await connection.execute(
            insert(files).values(
                id=record.file_id,
                user_id=record.user_id,
                name=record.name,
                media_type=record.media_type,
                size_bytes=record.size_bytes,
                sha256=record.sha256,
                create_time=record.create_time,
                run_id=record.run_id,
                description=record.description,
            )
        )

    async def _delete(self, record: FileRecord) -> None:
        user_id, digest = record.user_id, record.sha256

        async def work(connection: AsyncConnection) -> bool:
            await self._database.dialect.serialise(connection, "content", user_id, digest)
            removal = delete(files).where(files.c.id == record.file_id, files.c.user_id == user_id)
            if (await connection.execute(removal)).rowcount == 0:
                raise RecordNotFoundError("file", record.file_id)
            needed = select(exists().where(files.c.user_id == user_id, files.c.sha256 == digest))
            if (await connection.execute(needed)).scalar_one():
                return False
            await connection.execute(delete(file_contents).where(_is_content(user_id, digest)))
            return True

        async with self._lock(user_id, digest):
            # After the commit: a crash in between leaves content that nobody can reach, and the next start removes it.
            if await self._database.write(work):
                await asyncio.to_thread(self._directory.remove, user_id, digest)

    async def _piece(self, record: FileRecord, offset: int) -> bytes:
        path = self._directory.path(record.user_id, record.sha256)
        try:
            return await asyncio.to_thread(read_piece, path, offset)
        except FileNotFoundError:
            piece = await self._backing.piece(record.user_id, record.sha256, offset // PIECE_BYTES)
        except OSError as error:
            raise disk_failed(error) from error
        if piece is None:
            raise RecordNotFoundError("file", record.file_id)
        return piece

    async def _fetch(self, record: FileRecord) -> None:
        """Copy the content from its rows to the disk."""
        async with self._lock(record.user_id, record.sha256):
            spool = await asyncio.to_thread(self._directory.open_spool)
            try:
                offset = 0
                while offset < record.size_bytes:
                    piece = await self._piece(record, offset)
                    await spool.write(piece)
                    offset += len(piece)
                content = await asyncio.to_thread(spool.seal, record.user_id)
                await asyncio.to_thread(self._directory.place, spool, content)
            except OSError as error:
                raise disk_failed(error) from error
            finally:
                await asyncio.to_thread(spool.discard)
        await self._trim()

    async def _trim(self) -> None:
        if self._cache_limit_bytes is not None:
            await asyncio.to_thread(self._directory.trim, self._cache_limit_bytes, CACHE_SPARE_S)

    def _lock(self, user_id: str, digest: str) -> asyncio.Lock:
        return self._locks.setdefault((user_id, digest), asyncio.Lock())


async def open_files(database: Database, root: Path, *, embedded: bool) -> SqlFiles:
    """Return the files whose content lies under `root`, after removing what a crash left there.

    Args:
        database: holds the records and, unless `embedded`, the content too.
        root: a directory; it is this process's alone if `embedded`, else a cache that processes may share.
        embedded: whether the directory is the content's only place.
    """
    directory = ContentDir(root)
    if not embedded:
        await asyncio.to_thread(directory.remove_leftovers, LEFTOVER_AGE_S)
        return SqlFiles(database, directory, ChunkRows(database), CACHE_LIMIT_BYTES)
    await asyncio.to_thread(directory.remove_leftovers, 0)
    query = select(file_contents.c.user_id, file_contents.c.sha256)
    rows = await database.read(lambda connection: connection.execute(query))
    known = {directory.path(row.user_id, row.sha256) for row in rows}
    for path in await asyncio.to_thread(directory.contents):
        if path not in known:
            await asyncio.to_thread(path.unlink)
    return SqlFiles(database, directory, NoBacking(), None)


def _sort_key(record: FileRecord) -> SortKey:
    return to_microseconds(record.create_time), record.file_id


def _is_content(user_id: str, digest: str) -> ColumnElement[bool]:
    return and_(file_contents.c.user_id == user_id, file_contents.c.sha256 == digest)


async def _get(connection: AsyncConnection, user_id: str, file_id: str) -> FileRecord:
    query = select(files).where(files.c.id == file_id, files.c.user_id == user_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise RecordNotFoundError("file", file_id)
    return file_record(row)
