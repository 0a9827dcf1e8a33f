"""The files that a run makes: kept for the user, told by `artifact_created`, once each."""

import hashlib
import uuid
from collections.abc import AsyncIterable
from typing import Final

from agent_service.engine.emitter import RunEmitter
from agent_service.engine.events import ArtifactCreated
from agent_service.engine.ports import Clock
from agent_service.engine.tool import ToolError
from storage.errors import FileTooLargeError, RecordNotFoundError
from storage.interfaces import Files
from storage.records import FileRecord, RunRecord

MAX_ARTIFACT_BYTES: Final = 64 * 1024 * 1024
"""Of one file that a tool makes."""


class CallArtifacts:
    """Implements `tool.Artifacts` for one tool call."""

    def __init__(
        self, *, run: RunRecord, emitter: RunEmitter, files: Files, clock: Clock, agent_name: str, tool_call_id: str
    ) -> None:
        self._run = run
        self._emitter = emitter
        self._files = files
        self._clock = clock
        self._agent_name = agent_name
        self._tool_call_id = tool_call_id

    async def save(
        self, name: str, media_type: str, content: bytes | AsyncIterable[bytes], *, description: str = ""
    ) -> str:
        file_id = _file_id(self._run.run_id, self._tool_call_id, name)
        record = await self._kept(file_id) or await self._keep(file_id, name, media_type, content, description)
        if file_id not in self._emitter.state.artifact_ids:
            body = ArtifactCreated(file_id, record.name, record.media_type, record.size_bytes, record.description)
            await self._emitter.emit(self._agent_name, body)
        return file_id

    async def _kept(self, file_id: str) -> FileRecord | None:
        try:
            return await self._files.get(self._run.user_id, file_id)
        except RecordNotFoundError:
            return None

    async def _keep(
        self, file_id: str, name: str, media_type: str, content: bytes | AsyncIterable[bytes], description: str
    ) -> FileRecord:
        upload = self._files.upload(
            self._run.user_id,
            file_id,
            name,
            media_type,
            max_bytes=MAX_ARTIFACT_BYTES,
            run_id=self._run.run_id,
            description=description,
        )
        try:
            async with upload:
                if isinstance(content, bytes):
                    await upload.write(content)
                else:
                    async for piece in content:
                        await upload.write(piece)
                return await upload.commit(self._clock.now())
        except FileTooLargeError as error:
            raise ToolError(f"{name} would be larger than {error.limit_bytes} bytes. Ask for less.") from None


def _file_id(run_id: str, tool_call_id: str, name: str) -> str:
    """Return the id of this file of this call: always the same (a UUID of version 8, which is what such ids are)."""
    digest = hashlib.sha256(f"{run_id}\n{tool_call_id}\n{name}".encode()).digest()
    number = int.from_bytes(digest[:16]) & ~(0xF << 76) & ~(0b11 << 62) | (8 << 76) | (0b10 << 62)
    return str(uuid.UUID(int=number))
