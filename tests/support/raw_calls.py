"""Calls whose answers are not decoded: what the service sends, byte for byte."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.gates import TIMEOUT_S
from tests.support.storage import new_id

WATCH_RUN: Final = "/apex.agent.v1.AgentService/WatchRun"
ATTACH: Final = "/apex.agent.v1.SessionService/Attach"
Metadata = tuple[tuple[str, str], ...]


async def watch_run(channel: grpc.aio.Channel, metadata: Metadata, run_id: str, after_seq: int = 0) -> Sequence[bytes]:
    """Return the events of a run to its end, as WatchRun sends them."""
    call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(WATCH_RUN)
    request = pb.WatchRunRequest(run_id=run_id, after_seq=after_seq).SerializeToString()
    async with asyncio.timeout(TIMEOUT_S):
        return [data async for data in call(request, metadata=metadata)]


def watch_run_blocking(channel: grpc.Channel, metadata: Metadata, run_id: str) -> Sequence[bytes]:
    """Return the same over a channel that is not asynchronous."""
    call: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(WATCH_RUN)
    return list(call(pb.WatchRunRequest(run_id=run_id).SerializeToString(), metadata=metadata, timeout=TIMEOUT_S))


async def attached_events(channel: grpc.aio.Channel, token: str, run_id: str) -> Sequence[bytes]:
    """Return the events of a run to its end, as the Attach call sends them."""
    session_id, over = new_id(), asyncio.Event()

    async def requests() -> AsyncIterator[bytes]:
        session = pb.OpenSession(session_id=session_id, token=token)
        yield pb.AttachRequest(open_session=session).SerializeToString()
        watch = pb.WatchRunItem(session_id=session_id, watch_id="w", run_id=run_id)
        yield pb.AttachRequest(watch_run=watch).SerializeToString()
        await over.wait()

    call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(ATTACH)
    events: list[bytes] = []
    async with asyncio.timeout(TIMEOUT_S):
        async for response in call(requests()):
            assert isinstance(response, bytes)
            events += undecoded_events(response)
            if any(item.HasField("watch_ended") for item in pb.AttachResponse.FromString(response).items):
                over.set()
    return events


def undecoded_events(response: bytes) -> Sequence[bytes]:
    """Return the events of an `AttachResponse` as the bytes that they are in it."""
    read = _READER()
    read.ParseFromString(response)
    items: Sequence[Message] = getattr(read, "items")  # noqa: B009 - a message without generated code
    return [event for item in items if (event := getattr(item, "event"))]  # noqa: B009 - likewise


def _reader() -> type[Message]:
    """Return `AttachResponse` with its events as bytes: on the wire the two are the same."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="undecoded.proto", package="undecoded", syntax="proto3")
    response = file.message_type.add(name="AttachResponse")
    items = response.field.add(name="items", number=pb.AttachResponse.ITEMS_FIELD_NUMBER, label=kinds.LABEL_REPEATED)
    items.type, items.type_name = kinds.TYPE_MESSAGE, ".undecoded.AttachResponse.Item"
    event = response.nested_type.add(name="Item").field.add(
        name="event", number=pb.AttachResponse.Item.EVENT_FIELD_NUMBER
    )
    event.type, event.label = kinds.TYPE_BYTES, kinds.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("undecoded.AttachResponse"))


_READER: Final = _reader()
