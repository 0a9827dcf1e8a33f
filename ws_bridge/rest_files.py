"""REST of files: uploads and downloads pass through, piece by piece."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from urllib.parse import quote

import grpc
from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge import rest_models as models
from ws_bridge.calls import Calls, bearer
from ws_bridge.close_codes import Reason
from ws_bridge.early_end import EarlyEnd
from ws_bridge.frames import Failure, Violation
from ws_bridge.http_errors import RefusedError
from ws_bridge.multipart import FilePart, MultipartError
from ws_bridge.rest import CALL_TIMEOUT_S, ERRORS, PageSize, PageToken, Token, message_response
from ws_bridge.wire.errors import failure_of, in_upload_terms

CHUNK_BYTES: Final = 256 * 1024
"""The largest piece of a file in one message of the contract."""
TRANSFER_TIMEOUT_S: Final = 600.0
"""How long one upload or download may take."""
DISCARD_TIMEOUT_S: Final = 10.0
"""How long a refused upload is read on, in seconds, and no further than the limit of a file."""
FORM_OVERHEAD_BYTES: Final = 64 * 1024
"""What a form may hold beside the file."""
OCTETS: Final = "application/octet-stream"
SANDBOX: Final = "sandbox; default-src 'none'"

_UPLOAD_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}

_UploadCall = grpc.aio.StreamUnaryCall[pb.UploadFileRequest, pb.UploadFileResponse]


def file_routes(calls: Calls, max_upload_bytes: int) -> APIRouter:
    """Return the routes of files."""
    router = APIRouter(tags=["files"], responses={**ERRORS})

    @router.post(
        "/files",
        response_model=models.File,
        status_code=201,
        openapi_extra=_UPLOAD_BODY,
        responses={413: {"model": models.Error}, 415: {"model": models.Error}},
        summary="Upload a file",
    )
    async def upload_file(request: Request, token: Token) -> Response:
        return message_response(await _take_upload(calls, request, token, max_upload_bytes), 201)

    @router.get("/files", response_model=models.FilePage, summary="List files, newest first")
    async def list_files(token: Token, page_size: PageSize = 0, page_token: PageToken = "") -> Response:
        request = pb.ListFilesRequest(page_size=page_size, page_token=page_token)
        return message_response(await calls.files.ListFiles(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S))

    @router.get("/files/{file_id}", response_model=models.File, summary="Get what is known about a file")
    async def get_file(token: Token, file_id: str) -> Response:
        request = pb.GetFileRequest(file_id=file_id)
        response = await calls.files.GetFile(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
        return message_response(response.file)

    @router.get(
        "/files/{file_id}/content",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}}},
        summary="Download a file",
    )
    async def download_file(token: Token, file_id: str) -> Response:
        request = pb.DownloadFileRequest(file_id=file_id)
        call = calls.files.DownloadFile(request, metadata=bearer(token), timeout=TRANSFER_TIMEOUT_S)
        parts = aiter(call)
        try:
            first = await anext(parts)
        except BaseException:
            call.cancel()
            raise
        return Download(first.file, parts, call.cancel)

    @router.delete("/files/{file_id}", status_code=204, summary="Delete a file")
    async def delete_file(token: Token, file_id: str) -> Response:
        request = pb.DeleteFileRequest(file_id=file_id)
        await calls.files.DeleteFile(request, metadata=bearer(token), timeout=CALL_TIMEOUT_S)
        return Response(status_code=204)

    return router


async def _take_upload(calls: Calls, request: Request, token: str, max_bytes: int) -> pb.File:
    body = request.stream()
    call: _UploadCall = calls.files.UploadFile(metadata=bearer(token), timeout=TRANSFER_TIMEOUT_S)
    try:
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > max_bytes + FORM_OVERHEAD_BYTES:
            raise _too_large(max_bytes)
        await _upload(call, FilePart(request.headers.get("content-type", ""), body), max_bytes)
        return (await call).file
    except MultipartError as error:
        await _discard(body, max_bytes)
        raise _unusable(str(error)) from error
    except RefusedError:
        await _discard(body, max_bytes)
        raise
    except grpc.aio.AioRpcError as error:
        await _discard(body, max_bytes)
        raise RefusedError(in_upload_terms(failure_of(error))) from error
    except ClientDisconnect as error:
        raise _unusable("the body broke off") from error  # nobody reads it
    finally:
        call.cancel()


async def _upload(call: _UploadCall, part: FilePart, max_bytes: int) -> None:
    """Send the file on. When the service refuses it in the middle, stop: the call's own error says why."""
    end = EarlyEnd(call)
    header = await part.header()
    metadata = pb.FileMetadata(name=header.name, media_type=header.media_type)
    size = 0
    try:
        await call.write(pb.UploadFileRequest(metadata=metadata))
        async for data in part.content():
            size += len(data)
            if size > max_bytes:
                raise _too_large(max_bytes)
            for start in range(0, len(data), CHUNK_BYTES):
                await call.write(pb.UploadFileRequest(chunk=data[start : start + CHUNK_BYTES]))
        await call.write(pb.UploadFileRequest(end=pb.FileEnd()))
        await call.done_writing()
    except asyncio.InvalidStateError:
        return
    except grpc.aio.AioRpcError as error:
        raise await end.reason(error) from error


async def _discard(body: AsyncIterator[bytes], max_bytes: int) -> None:
    """Read on for a while: a client that is still sending sees a broken line in place of our answer."""
    size = 0
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DISCARD_TIMEOUT_S):
            async for data in body:
                size += len(data)
                if size > max_bytes:
                    return


class Download(StreamingResponse):
    """A file on its way. `end_call` is called once when nothing more is sent, however it ended."""

    def __init__(
        self, file: pb.File, parts: AsyncIterator[pb.DownloadFileResponse], end_call: Callable[[], object]
    ) -> None:
        stored = file.media_type
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file.name, safe='')}",
            "content-security-policy": SANDBOX,
            "content-length": str(file.size_bytes),
            # As a header, for a `media_type` of Starlette gets a charset that nobody has looked for.
            "content-type": stored if stored.isascii() and stored.isprintable() and stored else OCTETS,
            "x-content-type-options": "nosniff",
        }
        super().__init__((part.chunk async for part in parts), headers=headers)
        self._end_call = end_call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file; a client may be gone before its first byte."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end_call()


def _unusable(what: str) -> RefusedError:
    violations = (Violation("file", what),)
    return RefusedError(Failure(Reason.INVALID_ARGUMENT, f"The upload is not usable: {what}.", violations=violations))


def _too_large(max_bytes: int) -> RefusedError:
    text = f"The file is larger than permitted: at most {max_bytes} bytes."
    return RefusedError(Failure(Reason.MESSAGE_TOO_LARGE, text))
