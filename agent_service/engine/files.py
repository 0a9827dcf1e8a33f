"""Files as callers see them. Every error is an `ApexError`."""

from collections.abc import AsyncIterator

from agent_service.engine.context import UserExecutionContext
from agent_service.engine.ports import Clock, Ids
from agent_service.engine.translation import translated
from storage.interfaces import Files as StoredFiles
from storage.records import FileRecord, Page


class Files:
    """Upload, look up, read and delete the user's files. `max_upload_bytes` bounds one file."""

    def __init__(self, files: StoredFiles, clock: Clock, ids: Ids, *, max_upload_bytes: int) -> None:
        self._files = files
        self._clock = clock
        self._ids = ids
        self._max_upload_bytes = max_upload_bytes

    async def upload(
        self, user: UserExecutionContext, name: str, media_type: str, pieces: AsyncIterator[bytes]
    ) -> FileRecord:
        """Save the pieces as one file. Nothing is kept unless all of them arrive and fit."""
        file_id = self._ids.new()
        with translated():
            upload = self._files.upload(user.user_id, file_id, name, media_type, max_bytes=self._max_upload_bytes)
            async with upload:
                async for piece in pieces:
                    await upload.write(piece)
                return await upload.commit(self._clock.now())

    async def get(self, user: UserExecutionContext, file_id: str) -> FileRecord:
        """Return a file of the user."""
        with translated():
            return await self._files.get(user.user_id, file_id)

    async def list(self, user: UserExecutionContext, *, page_size: int, page_token: str) -> Page[FileRecord]:
        """List the user's files, newest first."""
        with translated():
            return await self._files.list(user.user_id, page_size=page_size, page_token=page_token)

    async def delete(self, user: UserExecutionContext, file_id: str) -> None:
        """Delete a file of the user."""
        with translated():
            await self._files.delete(user.user_id, file_id)

    async def read(self, user: UserExecutionContext, file_id: str) -> AsyncIterator[bytes]:
        """Yield a file's content in order, in pieces of at most 256 KiB."""
        with translated():
            async for piece in self._files.read(user.user_id, file_id):
                yield piece
