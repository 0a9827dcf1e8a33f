"""A real production log through the real product: brought, asked about, answered exactly.

Every number that is expected here is computed by plain Python over the same file.
"""

import csv
import gzip
import io
import re
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

import grpc
import httpx
import pytest

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.bridge_server import Frame
from tests.support.datasets import TRACE
from tests.support.deployment import Deployment
from tests.support.grammar import check_frames
from tests.support.service_client import TIMEOUT_S, ServiceClient, failing, upload_parts
from tests.support.waiting import wait_until

QUESTION: Final = "Analyze my AI costs"
USD_PER_MTOK: Final = (Decimal("2.5"), Decimal(10))
"""What gpt-4o costs, input and output."""

EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - the trace's times name no zone; they are taken for UTC

MAX_UPLOAD_BYTES: Final = 1_000


# ---- The expected numbers ----


@dataclass(frozen=True, slots=True)
class Request:
    """A line of the trace. Its times have 7 digits after the second, and the last is always 0."""

    time: datetime
    input_tokens: int
    output_tokens: int


def read_trace(content: bytes) -> Sequence[Request]:
    rows = csv.DictReader(io.StringIO(content.decode()))
    return [
        Request(datetime.fromisoformat(row["TIMESTAMP"][:-1]), int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        for row in rows
    ]


CONTENT: Final = gzip.decompress(TRACE.read_bytes())
REQUESTS: Final = read_trace(CONTENT)
INPUT_TOKENS: Final = sum(request.input_tokens for request in REQUESTS)
OUTPUT_TOKENS: Final = sum(request.output_tokens for request in REQUESTS)
FIRST: Final = min(request.time for request in REQUESTS)
LAST: Final = max(request.time for request in REQUESTS)


def peak(length: timedelta) -> str:
    """Return the busiest stretch as the answer writes it; the earliest of equals."""
    stretches = Counter((request.time - EPOCH) // length for request in REQUESTS)
    busiest = min(stretches, key=lambda number: (-stretches[number], number))
    tokens = sum(
        request.input_tokens + request.output_tokens
        for request in REQUESTS
        if (request.time - EPOCH) // length == busiest
    )
    start = EPOCH + busiest * length
    return f"{start:%Y-%m-%d %H:%M} UTC: {stretches[busiest]:,} requests, {tokens:,} tokens"


def numbers() -> dict[str, str]:
    """Return the lines of the answer's table that must be there."""
    minutes, seconds = divmod((LAST - FIRST).total_seconds(), 60)
    assert minutes < 60
    return {
        "Requests": f"{len(REQUESTS):,}",
        "Context (input) tokens": f"{INPUT_TOKENS:,}",
        "Generated (output) tokens": f"{OUTPUT_TOKENS:,}",
        "Tokens in all": f"{INPUT_TOKENS + OUTPUT_TOKENS:,}",
        "First request": f"{FIRST} UTC",
        "Last request": f"{LAST} UTC",
        "Time span": f"{minutes:.0f} min {seconds:.1f} s",
        "Busiest minute": peak(timedelta(minutes=1)),
        "Busiest hour": peak(timedelta(hours=1)),
    }


def cost_usd() -> Decimal:
    """Return what all of it costs with gpt-4o."""
    input_price, output_price = USD_PER_MTOK
    return (INPUT_TOKENS * input_price + OUTPUT_TOKENS * output_price) / 1_000_000


# ---- The product ----


@pytest.fixture(scope="module")
def apex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("apex")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The product with a small limit for uploads."""
    folder = tmp_path_factory.mktemp("strict")
    with Deployment(folder, settings={"APEX_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES)}) as deployment:
        yield deployment


def client_of(apex: Deployment, user: str) -> ServiceClient:
    return ServiceClient(apex.grpc_target, apex.token(user))


def upload(apex: Deployment, how: str, user: str, name: str, content: bytes) -> str:
    """Upload over one of the two transports; return the file's id."""
    if how == "rest":
        return apex.upload(user, name, content)
    with client_of(apex, user) as client:
        return client.upload(name, content).file_id


async def answer(apex: Deployment, user: str, question: str, file_id: str = "") -> Frame:
    """Ask over the socket; return the final response. The grammar holds."""
    references = [{"file_id": file_id}] if file_id else []
    async with apex.socket(user) as client:
        await client.expect("connection_established")
        await client.send("user_message", content=question, references=references)
        frames = await client.receive_until("agent_completed", "agent_error")
    events = [frame for frame in frames if "seq" in frame]
    check_frames(events)
    final, end = events[-2:]
    assert end["payload"]["status"] == "success"
    response: Frame = final["payload"]
    return response


def table(content: str) -> dict[str, str]:
    """Return the two-column table of numbers of an answer."""
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", content, re.MULTILINE))


# ---- The answers ----


@pytest.mark.parametrize("how", ["grpc", "rest"])
async def test_the_numbers_are_exact_and_what_is_missing_is_said(apex: Deployment, how: str) -> None:
    user = f"finops-{how}"
    file_id = upload(apex, how, user, "azure.csv", CONTENT)
    response = await answer(apex, user, QUESTION, file_id)
    content = response["content"]
    assert "azure.csv" in content
    assert numbers().items() <= table(content).items()
    for number in (len(REQUESTS), INPUT_TOKENS, OUTPUT_TOKENS):
        assert f"{number:,}" in content.splitlines()[0], "the first line says the most important"
    missing = {line.partition(":")[0] for line in response["missing_data"]}
    assert {"model", "latency"} <= missing
    for column in ("model", "latency"):
        assert f"**{column}**" in content
    assert "$" not in content, "without a model nothing has a price"
    assert "assume gpt-4o" in content


async def test_an_assumed_model_prices_every_request(apex: Deployment) -> None:
    user = "pricing"
    upload(apex, "grpc", user, "azure.csv.gz", TRACE.read_bytes())
    response = await answer(apex, user, f"{QUESTION}, assume gpt-4o")
    content = response["content"]
    cost = cost_usd()
    assert numbers().items() <= table(content).items()
    assert table(content)["Cost"] == f"${cost:,.2f}"
    assert table(content)["Cost per request"] == f"${cost / len(REQUESTS):.6f}"
    assert f"${cost:,.2f}" in content.splitlines()[0]
    assert "gpt-4o (assumed)" in content
    assert "cost" not in {line.partition(":")[0] for line in response["missing_data"]}


def test_the_answer_over_grpc_is_as_exact(apex: Deployment) -> None:
    with client_of(apex, "service") as client:
        file = client.upload("azure.csv", CONTENT, size_bytes=len(CONTENT))
        events = client.run(pb.RunAgentRequest(content=QUESTION, references=[pb.Reference(file_id=file.file_id)]))
    assert numbers().items() <= table(events[-2].final_response.content).items()
    assert {"usage_summary"} <= {event.tool_executing.tool_name for event in events}


def test_what_was_brought_comes_back_byte_for_byte(apex: Deployment) -> None:
    with client_of(apex, "careful") as client:
        file = client.upload("azure.csv", CONTENT)
        request = pb.DownloadFileRequest(file_id=file.file_id)
        first, *rest = client.files.DownloadFile(request, metadata=client.metadata, timeout=TIMEOUT_S)
    assert first.file == file
    assert b"".join(part.chunk for part in rest) == CONTENT
    headers = {"Authorization": f"Bearer {apex.token('careful')}"}
    download = httpx.get(f"{apex.url}/api/v1/files/{file.file_id}/content", headers=headers)
    assert download.content == CONTENT
    assert download.headers["content-disposition"].startswith("attachment")
    foreign = {"Authorization": f"Bearer {apex.token('thief')}"}
    assert httpx.get(f"{apex.url}/api/v1/files/{file.file_id}/content", headers=foreign).status_code == 404


# ---- Half-finished uploads ----


def leftovers(apex: Deployment) -> list[str]:
    """Return the temporary files in the data directory."""
    return [str(path) for path in (apex.data_dir / "files" / "incoming").glob("*")]


def test_an_upload_over_grpc_that_is_given_up_leaves_nothing(apex: Deployment) -> None:
    with client_of(apex, "fickle") as client:
        head, piece, *_ = upload_parts("azure.csv", CONTENT)

        def half() -> Iterator[pb.UploadFileRequest]:
            yield head
            yield piece
            wait_until(lambda: bool(leftovers(apex)), what="the first piece is on the disk")
            call.cancel()

        call = client.files.UploadFile.future(half(), metadata=client.metadata)
        with pytest.raises(grpc.FutureCancelledError):
            call.result(TIMEOUT_S)
        wait_until(lambda: not leftovers(apex), what="nothing of it stays on the disk")
        assert not client.list_files()


def test_an_upload_over_grpc_that_merely_stops_leaves_nothing(apex: Deployment) -> None:
    with client_of(apex, "cut") as client:
        head, piece, *_ = upload_parts("azure.csv", CONTENT)
        with failing("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT) as failure:
            client.files.UploadFile(iter([head, piece]), metadata=client.metadata, timeout=TIMEOUT_S)
        assert "broke off" in failure.message
        assert not client.list_files()
    assert not leftovers(apex)


def test_an_upload_over_rest_whose_line_is_cut_leaves_nothing(apex: Deployment) -> None:
    head = (
        "POST /api/v1/files HTTP/1.1\r\n"
        f"Host: {urlsplit(apex.url).netloc}\r\n"
        f"Authorization: Bearer {apex.token('gone')}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {len(CONTENT) * 2}\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="azure.csv"\r\n\r\n'
    )
    address = urlsplit(apex.url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 0)) as line:
        line.sendall(head.encode() + CONTENT)
        wait_until(lambda: bool(leftovers(apex)), what="a part of it is on the disk")
    wait_until(lambda: not leftovers(apex), what="nothing of it stays on the disk")
    assert apex.request("GET", "/api/v1/files", "gone")["files"] == []


def test_an_upload_that_a_crash_ends_leaves_nothing(apex: Deployment) -> None:
    with client_of(apex, "unlucky") as client:
        head, piece, *_ = upload_parts("azure.csv", CONTENT)

        def half() -> Iterator[pb.UploadFileRequest]:
            yield head
            yield piece
            wait_until(lambda: bool(leftovers(apex)), what="the first piece is on the disk")
            apex.kill_service()

        with pytest.raises(grpc.RpcError):
            client.files.UploadFile(half(), metadata=client.metadata, timeout=TIMEOUT_S)
        assert leftovers(apex)
        apex.start_service()
        assert not leftovers(apex)
    with client_of(apex, "unlucky") as client:
        assert not client.list_files()
        assert client.upload("azure.csv", CONTENT).size_bytes == len(CONTENT)
    apex.wait_until_attached()


# ---- The limit ----


def rows(size_bytes: int) -> bytes:
    """Return a file of exactly this size."""
    return b"model,tokens\n".ljust(size_bytes, b"1")


def test_the_limit_over_grpc_is_the_settings(strict: Deployment) -> None:
    with client_of(strict, "edge") as client:
        assert client.upload("a.csv", rows(MAX_UPLOAD_BYTES)).size_bytes == MAX_UPLOAD_BYTES
        too_large = rows(MAX_UPLOAD_BYTES + 1)
        for said in (0, len(too_large)):
            with failing("MESSAGE_TOO_LARGE", grpc.StatusCode.INVALID_ARGUMENT) as failure:
                client.upload("b.csv", too_large, size_bytes=said)
            assert str(MAX_UPLOAD_BYTES) in failure.message
        assert [file.name for file in client.list_files()] == ["a.csv"]
    assert not leftovers(strict)


def test_the_limit_over_rest_is_the_same(strict: Deployment) -> None:
    def post(content: bytes) -> httpx.Response:
        headers = {"Authorization": f"Bearer {strict.token('edge-rest')}"}
        return httpx.post(f"{strict.url}/api/v1/files", files={"file": ("a.csv", content)}, headers=headers)

    taken = post(rows(MAX_UPLOAD_BYTES))
    assert (taken.status_code, taken.json()["size_bytes"]) == (201, MAX_UPLOAD_BYTES)
    for size_bytes in (MAX_UPLOAD_BYTES + 1, 10 * 1024 * 1024):
        refused = post(rows(size_bytes))
        assert (refused.status_code, refused.json()["payload"]["code"]) == (413, "MESSAGE_TOO_LARGE")
        assert str(MAX_UPLOAD_BYTES) in refused.json()["payload"]["message"]
    assert len(strict.request("GET", "/api/v1/files", "edge-rest")["files"]) == 1
