import hashlib
from collections.abc import AsyncIterator, Iterable

import grpc
import pytest

from agent_service.api.files_servicer import media_type_of
from agent_service.api.options import ApiOptions
from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.errors import failed_with
from tests.support.face import Face, open_face, signed_in
from tests.support.waiting import eventually

END = pb.UploadFileRequest(end=pb.FileEnd())


def begun(content: Iterable[bytes], name: str = "log.csv", size_bytes: int = 0) -> list[pb.UploadFileRequest]:
    metadata = pb.FileMetadata(name=name, size_bytes=size_bytes)
    return [pb.UploadFileRequest(metadata=metadata), *(pb.UploadFileRequest(chunk=piece) for piece in content)]


def parts(content: Iterable[bytes], name: str = "log.csv", size_bytes: int = 0) -> list[pb.UploadFileRequest]:
    return [*begun(content, name, size_bytes), END]


async def upload(face: Face, requests: Iterable[pb.UploadFileRequest]) -> pb.File:
    return (await face.files.UploadFile(iter(requests), metadata=signed_in())).file


async def test_a_file_comes_back_as_it_was_sent(face: Face) -> None:
    content = [bytes([number]) * 262_144 for number in range(3)] + [b"end"]
    file = await upload(face, parts(content, size_bytes=3 * 262_144 + 3))
    assert file.sha256 == hashlib.sha256(b"".join(content)).hexdigest()
    assert (file.name, file.media_type, file.size_bytes) == ("log.csv", "text/csv", 3 * 262_144 + 3)
    call = face.files.DownloadFile(pb.DownloadFileRequest(file_id=file.file_id), metadata=signed_in())
    received = [response async for response in call]
    assert received[0].file == file
    assert b"".join(response.chunk for response in received[1:]) == b"".join(content)
    listed = await face.files.ListFiles(pb.ListFilesRequest(), metadata=signed_in())
    assert list(listed.files) == [file]
    await face.files.DeleteFile(pb.DeleteFileRequest(file_id=file.file_id), metadata=signed_in())
    async with failed_with("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await face.files.GetFile(pb.GetFileRequest(file_id=file.file_id), metadata=signed_in())


async def test_a_file_of_somebody_else_is_not_there(face: Face) -> None:
    file = await upload(face, parts([b"x"]))
    other = signed_in("bob")
    async with failed_with("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await face.files.GetFile(pb.GetFileRequest(file_id=file.file_id), metadata=other)
    async with failed_with("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await face.files.DownloadFile(pb.DownloadFileRequest(file_id=file.file_id), metadata=other).read()
    async with failed_with("NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await face.files.DeleteFile(pb.DeleteFileRequest(file_id=file.file_id), metadata=other)


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([], "INVALID_ARGUMENT"),
        ([pb.UploadFileRequest(chunk=b"x")], "INVALID_ARGUMENT"),
        ([*begun([b"x"]), *parts([])], "INVALID_ARGUMENT"),
        ([*parts([b"x"]), pb.UploadFileRequest(chunk=b"x")], "INVALID_ARGUMENT"),
        (begun([b"x"]), "INVALID_ARGUMENT"),
        (begun([b"x"], size_bytes=2), "INVALID_ARGUMENT"),
        (parts([b"x"], name="../etc"), "INVALID_ARGUMENT"),
        (parts([b"xy"], size_bytes=3), "INVALID_ARGUMENT"),
        ([*begun([b"x"]), pb.UploadFileRequest(chunk=b"")], "INVALID_ARGUMENT"),
        (parts([]), "UNSUPPORTED_FILE"),
    ],
    ids=[
        "nothing",
        "no metadata",
        "two metadata",
        "more after the end",
        "no end",
        "cut off",
        "a path",
        "another size",
        "an empty piece",
        "an empty file",
    ],
)
async def test_a_broken_upload_leaves_nothing(face: Face, requests: list[pb.UploadFileRequest], reason: str) -> None:
    async with failed_with(reason, grpc.StatusCode.INVALID_ARGUMENT):
        await upload(face, requests)
    assert not (await face.files.ListFiles(pb.ListFilesRequest(), metadata=signed_in())).files


@pytest.fixture
async def small() -> AsyncIterator[Face]:
    async with open_face(ApiOptions("127.0.0.1:0", max_upload_bytes=10)) as running:
        yield running


async def test_a_file_has_a_bounded_size(small: Face) -> None:
    assert (await upload(small, parts([b"x" * 5, b"y" * 5]))).size_bytes == 10
    for requests in (parts([b"x" * 5, b"y" * 6]), parts([b"x"], size_bytes=11)):
        async with failed_with("MESSAGE_TOO_LARGE", grpc.StatusCode.INVALID_ARGUMENT):
            await upload(small, requests)


async def test_the_size_may_tell_the_end(face: Face) -> None:
    assert (await upload(face, begun([b"ab"], size_bytes=2))).size_bytes == 2


async def test_an_upload_that_breaks_off_leaves_nothing(face: Face) -> None:
    call = face.files.UploadFile(metadata=signed_in())
    for request in begun([b"x"]):
        await call.write(request)
    call.cancel()
    finished = {"method": "UploadFile"}
    await eventually(
        lambda: face.metrics.get_sample_value("apex_grpc_open_calls", finished) == 0, what="the upload has ended"
    )
    assert not (await face.files.ListFiles(pb.ListFilesRequest(), metadata=signed_in())).files


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("a.csv", "", "text/csv"),
        ("a.PARQUET", "", "application/vnd.apache.parquet"),
        ("a.svg", "", "image/svg+xml"),
        ("a.csv", "text/plain", "text/plain"),
        ("noend", "", "application/octet-stream"),
    ],
)
def test_the_type_is_the_one_given_or_the_endings(name: str, given: str, expected: str) -> None:
    assert media_type_of(pb.FileMetadata(name=name, media_type=given)) == expected
