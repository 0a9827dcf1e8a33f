"""Files in memory; a local copy is written only for who asks for a path."""

import tempfile
from collections.abc import AsyncIterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from storage.errors import RecordNotFoundError
from storage.memory_state import MemoryState
from storage.paging import SortKey, cut_page, read_token
from storage.records import FileRecord, Page
from storage.schema import to_microseconds
from storage.spool import PIECE_BYTES, Content
from storage.upload import NewFile


class MemoryFiles:
    """Implements `storage.interfaces.Files`."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state
        self._copies: tempfile.TemporaryDirectory[str] | None = None

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
    ) -> "MemoryUpload":
        return MemoryUpload(self._state, NewFile(user_id, file_id, name, media_type, max_bytes, run_id, description))

    async def get(self, user_id: str, file_id: str) -> FileRecord:
        return self._get(user_id, file_id)

    async def list(self, user_id: str, *, page_size: int, page_token: str = "") -> Page[FileRecord]:
        listing = ("files", user_id)
        after = read_token(page_token, *listing)
        found = [
            record
            for record in self._state.files.values()
            if record.user_id == user_id and (after is None or _sort_key(record) < after)
        ]
        return cut_page(sorted(found, key=_sort_key, reverse=True), page_size, _sort_key, *listing)

    async def delete(self, user_id: str, file_id: str) -> None:
        record = self._get(user_id, file_id)
        del self._state.files[file_id]
        key = (user_id, record.sha256)
        if all((other.user_id, other.sha256) != key for other in self._state.files.values()):
            del self._state.contents[key]
            self._copy_path(record).unlink(missing_ok=True)

    async def read(self, user_id: str, file_id: str) -> AsyncIterator[bytes]:
        size_bytes = self._get(user_id, file_id).size_bytes
        for offset in range(0, size_bytes, PIECE_BYTES):
            # Looked up for each piece: the file may be deleted while its reader pauses.
            record = self._get(user_id, file_id)
            yield self._state.contents[user_id, record.sha256][offset : offset + PIECE_BYTES]

    async def local_path(self, user_id: str, file_id: str) -> Path:
        record = self._get(user_id, file_id)
        path = self._copy_path(record)
        path.parent.mkdir(exist_ok=True)
        if not path.exists():  # another reader may be at it: what a hash names never changes
            path.write_bytes(self._state.contents[user_id, record.sha256])
        return path

    def remove_copies(self) -> None:
        """Remove the local copies."""
        if self._copies is not None:
            self._copies.cleanup()
            self._copies = None

    def _get(self, user_id: str, file_id: str) -> FileRecord:
        record = self._state.files.get(file_id)
        if record is None or record.user_id != user_id:
            raise RecordNotFoundError("file", file_id)
        return record

    def _copy_path(self, record: FileRecord) -> Path:
        if self._copies is None:
            self._copies = tempfile.TemporaryDirectory(prefix="apex-files-")
        return Path(self._copies.name) / sha256(record.user_id.encode()).hexdigest() / record.sha256


class MemoryUpload:
    """Implements `storage.interfaces.Upload`."""

    def __init__(self, state: MemoryState, new: NewFile) -> None:
        self._state = state
        self._new = new
        self._taken: bytearray | None = None
        self._size_bytes = 0

    async def __aenter__(self) -> Self:
        self._taken = bytearray()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taken = None

    async def write(self, data: bytes) -> None:
        taken = self._open()
        self._size_bytes += len(data)
        self._new.check_size(self._size_bytes)
        taken += data

    async def commit(self, create_time: datetime) -> FileRecord:
        data = bytes(self._open())
        self._new.check_size(self._size_bytes)
        self._taken = None
        record = self._new.record(Content(self._new.user_id, sha256(data).hexdigest(), len(data)), create_time)
        self._state.contents[record.user_id, record.sha256] = data
        self._state.files[record.file_id] = record
        return record

    def _open(self) -> bytearray:
        if self._taken is None:
            raise RuntimeError("the upload has not begun, or is committed already")
        return self._taken


def _sort_key(record: FileRecord) -> SortKey:
    return to_microseconds(record.create_time), record.file_id
