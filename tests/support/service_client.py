"""A synchronous client with the generated stubs, as another service would write one."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

import grpc
import pytest

from agent_service.api.wire import ProtoCodec
from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1 import agent_pb2_grpc
from tests.support.errors import Failure, details_of
from tests.support.grammar import check_run

TIMEOUT_S: Final = 30.0
PIECE_BYTES: Final = 256 * 1024

Metadata = tuple[tuple[str, str | bytes], ...]


class ServiceClient:
    """A channel with a user's token. Use as a context manager; every call gives up after `TIMEOUT_S` seconds."""

    def __init__(self, target: str, token: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self.metadata: Metadata = (("authorization", f"Bearer {token}"),)
        self.agents = agent_pb2_grpc.AgentServiceStub(self._channel)
        self.threads = agent_pb2_grpc.ThreadServiceStub(self._channel)
        self.files = agent_pb2_grpc.FileServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def run(self, request: pb.RunAgentRequest) -> Sequence[pb.AgentEvent]:
        """Run a message to its end with `RunAgent`; the grammar holds."""
        events = tuple(self.agents.RunAgent(request, metadata=self.metadata, timeout=TIMEOUT_S))
        check_events(events)
        return events

    def start(
        self, content: str, *, agent: str = "", thread_id: str = "", client_message_id: str = ""
    ) -> pb.StartRunResponse:
        """Start a run with `StartRun`."""
        run = pb.RunAgentRequest(content=content, agent=agent, thread_id=thread_id, client_message_id=client_message_id)
        return self.agents.StartRun(pb.StartRunRequest(run=run), metadata=self.metadata, timeout=TIMEOUT_S)

    def watch(self, run_id: str, after_seq: int = 0) -> Iterator[pb.AgentEvent]:
        """Watch a run from a cursor."""
        request = pb.WatchRunRequest(run_id=run_id, after_seq=after_seq)
        events: Iterator[pb.AgentEvent] = self.agents.WatchRun(request, metadata=self.metadata, timeout=TIMEOUT_S)
        return events

    def cancel(self, *, run_id: str = "", client_message_id: str = "", reason: str = "") -> pb.Run:
        """Cancel a run by one of its names."""
        request = pb.CancelRunRequest(reason=reason)
        if run_id:
            request.run_id = run_id
        else:
            request.client_message_id = client_message_id
        return self.agents.CancelRun(request, metadata=self.metadata, timeout=TIMEOUT_S).run

    def get(self, run_id: str) -> pb.Run:
        """Return a run."""
        return self.agents.GetRun(pb.GetRunRequest(run_id=run_id), metadata=self.metadata, timeout=TIMEOUT_S).run

    def upload(self, name: str, content: bytes, *, size_bytes: int = 0) -> pb.File:
        """Upload a file."""
        parts = upload_parts(name, content, size_bytes=size_bytes)
        return self.files.UploadFile(iter(parts), metadata=self.metadata, timeout=TIMEOUT_S).file

    def list_files(self) -> Sequence[pb.File]:
        """Return the first page of files."""
        return self.files.ListFiles(pb.ListFilesRequest(), metadata=self.metadata, timeout=TIMEOUT_S).files


def upload_parts(name: str, content: bytes, *, size_bytes: int = 0) -> Iterable[pb.UploadFileRequest]:
    """Return the messages of an upload; `size_bytes` is what its metadata says."""
    yield pb.UploadFileRequest(metadata=pb.FileMetadata(name=name, size_bytes=size_bytes))
    for start in range(0, len(content), PIECE_BYTES):
        yield pb.UploadFileRequest(chunk=content[start : start + PIECE_BYTES])
    yield pb.UploadFileRequest(end=pb.FileEnd())


def check_events(events: Iterable[pb.AgentEvent], *, finished: bool = True) -> None:
    """Hold the events of one run, from seq 1 on, against the grammar."""
    codec = ProtoCodec()
    check_run([codec.decode(event.SerializeToString()) for event in events], finished=finished)


def case_of(event: pb.AgentEvent) -> str:
    """Return what kind of event it is."""
    return str(event.WhichOneof("event"))


@contextmanager
def failing(reason: str, code: grpc.StatusCode) -> Iterator[Failure]:
    """Expect the body's call to fail so; the value holds the details afterwards."""
    failure = Failure()
    with pytest.raises(grpc.RpcError) as caught:
        yield failure
    call: object = caught.value
    assert isinstance(call, grpc.Call)
    found = details_of(call.trailing_metadata())
    assert (found.reason, call.code()) == (reason, code), (found, call.details())
    assert found.domain == "apex.agent.v1"
    failure.__dict__.update(found.__dict__)
