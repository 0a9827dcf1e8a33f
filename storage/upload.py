"""A file on its way in: what is known of it, and the upload that spools it to disk."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from storage.errors import FileTooLargeError
from storage.records import FileRecord
from storage.spool import Content, Spool, disk_failed


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is known of an upload before its content. `max_bytes` is the largest permitted size."""

    user_id: str
    file_id: str
    name: str
    media_type: str
    max_bytes: int
    run_id: str | None
    description: str

    def record(self, content: Content, create_time: datetime) -> FileRecord:
        """Return the record of the finished file."""
        return FileRecord(
            file_id=self.file_id,
            user_id=self.user_id,
            name=self.name,
            media_type=self.media_type,
            size_bytes=content.size_bytes,
            sha256=content.sha256,
            create_time=create_time,
            run_id=self.run_id,
            description=self.description,
        )

    def check_size(self, size_bytes: int) -> None:
        """Raise `FileTooLargeError` if that is too much."""
        if size_bytes > self.max_bytes:
            raise FileTooLargeError(self.max_bytes)


class UploadTarget(Protocol):
    """Where a spooled upload ends."""

    def open_spool(self) -> Spool:
        """Begin a temporary file. Blocks: call it in a thread."""
        ...

    async def keep(self, spool: Spool, new: NewFile, create_time: datetime) -> FileRecord:
        """Make what the spool took a file of the user; the spool is gone afterwards, whatever happens."""
        ...


class SpooledUpload:
    """Implements `storage.interfaces.Upload`."""

    def __init__(self, target: UploadTarget, new: NewFile) -> None:
        self._target = target
        self._new = new
        self._spool: Spool | None = None
        self._size_bytes = 0

    async def __aenter__(self) -> Self:
        opening = asyncio.ensure_future(asyncio.to_thread(self._target.open_spool))
        try:
            self._spool = await asyncio.shield(opening)
        except OSError as error:
            raise disk_failed(error) from error
        except asyncio.CancelledError:
            # The thread goes on, and nobody will leave what was never entered.
            opening.add_done_callback(_discard_unused)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spool is not None:
            # A second cancellation must not keep the thread from beginning.
            await asyncio.shield(asyncio.to_thread(self._spool.discard))

    async def write(self, data: bytes) -> None:
        spool = self._open_spool()
        self._size_bytes += len(data)
        self._new.check_size(self._size_bytes)
        try:
            await spool.write(data)
        except OSError as error:
            raise disk_failed(error) from error

    async def commit(self, create_time: datetime) -> FileRecord:
        spool = self._open_spool()
        self._new.check_size(self._size_bytes)
        # From here on the spool is the commit's, which ends even when its caller is cancelled.
        self._spool = None
        return await self._target.keep(spool, self._new, create_time)

    def _open_spool(self) -> Spool:
        if self._spool is None:
            raise RuntimeError("the upload has not begun, or is committed already")
        return self._spool


def _discard_unused(opening: asyncio.Future[Spool]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().discard()
