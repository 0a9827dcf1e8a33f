"""FileService: what users bring and what runs make."""

import mimetypes
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from agent_service.api.call import Call, Lifetimes
from agent_service.api.paging import page_size
from agent_service.api.wire_records import file_to_wire
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.files import Files
from agent_service.engine.translation import invalid
from generated.apex.agent.v1 import agent_pb2 as pb

MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".md": "text/markdown",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
}
"""Types by ending where machines disagree about them."""


@dataclass(frozen=True, slots=True)
class FileServicer:
    """The methods carry the names of the contract; its comments say what they do."""

    files: Files
    lifetimes: Lifetimes
    max_upload_bytes: int

    async def UploadFile(self, requests: AsyncIterator[pb.UploadFileRequest], call: Call) -> pb.UploadFileResponse:
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "metadata":
            raise invalid("metadata", "The first message of an upload must be its metadata.")
        metadata = first.metadata
        if metadata.size_bytes > self.max_upload_bytes:
            raise self._too_large()
        file = await self.files.upload(
            call.user, metadata.name, media_type_of(metadata), self._pieces(requests, metadata.size_bytes)
        )
        return pb.UploadFileResponse(file=file_to_wire(file))

    async def ListFiles(self, request: pb.ListFilesRequest, call: Call) -> pb.ListFilesResponse:
        page = await self.files.list(call.user, page_size=page_size(request.page_size), page_token=request.page_token)
        return pb.ListFilesResponse(
            files=[file_to_wire(file) for file in page.items], next_page_token=page.next_page_token
        )

    async def GetFile(self, request: pb.GetFileRequest, call: Call) -> pb.GetFileResponse:
        return pb.GetFileResponse(file=file_to_wire(await self.files.get(call.user, request.file_id.lower())))

    async def DownloadFile(self, request: pb.DownloadFileRequest, call: Call) -> None:
        file_id = request.file_id.lower()
        with self.lifetimes.place(call.user):
            await call.begin()
            async with self.lifetimes.limit(call.user):
                file = await self.files.get(call.user, file_id)
                await call.send(pb.DownloadFileResponse(file=file_to_wire(file)))
                async for piece in self.files.read(call.user, file_id):
                    await call.send(pb.DownloadFileResponse(chunk=piece))

    async def DeleteFile(self, request: pb.DeleteFileRequest, call: Call) -> pb.DeleteFileResponse:
        await self.files.delete(call.user, request.file_id.lower())
        return pb.DeleteFileResponse()

    async def _pieces(self, requests: AsyncIterator[pb.UploadFileRequest], size_bytes: int) -> AsyncIterator[bytes]:
        """Yield the content, which must be complete; `size_bytes` is what the metadata promised, 0 for nothing.

        A caller who goes away looks like one who has sent everything: only the end or the size tells them apart.
        """
        received = 0
        ended = False
        async for request in requests:
            part = request.WhichOneof("part")
            if ended or part == "metadata":
                raise invalid(part or "part", "An upload is its metadata, then the content, then its end.")
            ended = part == "end"
            received += len(request.chunk)
            if received > self.max_upload_bytes:
                raise self._too_large()
            if request.chunk:
                yield request.chunk
        if not ended and received != size_bytes:
            raise invalid("end", "The upload broke off: neither its end nor all of its metadata's size_bytes arrived.")
        if size_bytes and received != size_bytes:
            raise invalid("metadata.size_bytes", f"The metadata says {size_bytes} bytes, {received} arrived.")
        if received == 0:
            raise ApexError(ErrorReason.UNSUPPORTED_FILE, "The file is empty.")

    def _too_large(self) -> ApexError:
        text = f"The file is larger than {self.max_upload_bytes} bytes, the most that is taken."
        return ApexError(ErrorReason.MESSAGE_TOO_LARGE, text)


def media_type_of(metadata: pb.FileMetadata) -> str:
    """Return the type that the metadata names, or else the one that the name's ending implies."""
    if metadata.media_type:
        return metadata.media_type
    ending = PurePath(metadata.name).suffix.lower()
    return MEDIA_TYPES.get(ending) or mimetypes.types_map.get(ending) or "application/octet-stream"
