"""Somebody stops reading while a run says much: little is held for them, they alone are told, and nobody else waits.

gRPC's own probing of the bandwidth would let a stream that was fast once hold megabytes when it stalls, and a WebSocket
library without backpressure would hold the whole run.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Final

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from agent_service.api.call import Call
from agent_service.api.outbox import MAX_RESPONSE_BYTES
from agent_service.engine.clock import SystemIds
from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import AgentServiceStub, SessionServiceStub
from tests.support.bridge_server import SocketClient
from tests.support.errors import failed_with
from tests.support.manual_socket import TEXT, ManualSocket, manual_socket
from tests.support.speaker import Talk
from tests.support.stack import Service, Stack
from tests.support.waiting import eventually
from ws_bridge.channels import ATTACH_LOOKAHEAD_BYTES, attach_channel, call_channel
from ws_bridge.close_codes import CloseCode
from ws_bridge.line import LineProtocol

STREAM_BYTES: Final = 256 * 1024
"""What gRPC may hold of one stream that is not read, on both sides together."""

EVENT: Final = 30_000
ROUND: Final = 10
"""Events of that many characters that are said at a time; whoever reads has them before the next."""

FAST_ROUNDS: Final = 30
"""Rounds that everybody reads: enough to make a connection look like a wide one."""

STALLED_ROUNDS: Final = 40
"""Rounds that one does not read: 12 MB."""


class Taken:
    """How many bytes gRPC has taken of each call's messages; the rest waits in our own bounded queues."""

    def __init__(self) -> None:
        self.by_call: dict[Call, int] = {}

    def newest(self) -> Callable[[], int]:
        """Return the count of the call that has sent something for the first time last."""
        call = list(self.by_call)[-1]
        return lambda: self.by_call[call]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    counts = Taken()
    send = Call.send

    async def counting(call: Call, message: Message | bytes) -> None:
        counts.by_call.setdefault(call, 0)
        await send(call, message)
        counts.by_call[call] += len(message) if isinstance(message, bytes) else message.ByteSize()

    monkeypatch.setattr(Call, "send", counting)
    return counts


class EventReader:
    """Reads a stream of events, as far as it is told to."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[pb.WatchRunRequest, pb.AgentEvent]") -> None:
        self._call = call
        self.seq = 0
        self.read_bytes = 0

    async def read_to(self, seq: int) -> None:
        while self.seq < seq:
            event = await self._call.read()
            assert isinstance(event, pb.AgentEvent)
            assert event.seq == self.seq + 1
            self.seq = event.seq
            self.read_bytes += event.ByteSize()

    async def read_all(self) -> None:
        await self.read_to(2**32)


async def test_a_stream_that_stalls_holds_little_and_is_told(service: Service, taken: Taken) -> None:
    talk = await service.start()
    request = pb.WatchRunRequest(run_id=talk.run_id)
    async with call_channel(service.target) as channel:
        stalled = EventReader(AgentServiceStub(channel).WatchRun(request, metadata=service.metadata()))
        await stalled.read_to(1)
        of_stalled = taken.newest()
        other = EventReader(service.agents.WatchRun(request, metadata=service.metadata()))
        for _ in range(FAST_ROUNDS):
            seq = await talk.say(EVENT, times=ROUND)
            await asyncio.gather(stalled.read_to(seq), other.read_to(seq))
        for _ in range(STALLED_ROUNDS):
            await other.read_to(await talk.say(EVENT, times=ROUND))

        assert 0 < of_stalled() - stalled.read_bytes <= STREAM_BYTES
        async with failed_with("SLOW_CONSUMER", grpc.StatusCode.ABORTED) as failure:
            await stalled.read_all()
        assert failure.metadata["last_seq"] == str(stalled.seq)
        assert other.seq > stalled.seq
        await other.read_to(await talk.say(EVENT))


class Gateway:
    """One Attach call with one session that watches one run; reads as far as it is told to."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse]", token: str) -> None:
        self._call = call
        self._session_id = SystemIds().new()
        self._token = token
        self.seq = 0
        self.read_bytes = 0

    async def watch(self, talk: Talk) -> None:
        opening = pb.OpenSession(session_id=self._session_id, token=self._token)
        watching = pb.WatchRunItem(session_id=self._session_id, watch_id="w", run_id=talk.run_id)
        await self._call.write(pb.AttachRequest(open_session=opening))
        await self._call.write(pb.AttachRequest(watch_run=watching))

    async def read_to(self, seq: int) -> pb.WatchEnded | None:
        """Read the events up to this one, or to the watch's end, which is returned."""
        while self.seq < seq:
            response = await self._call.read()
            assert isinstance(response, pb.AttachResponse)
            self.read_bytes += response.ByteSize()
            for item in response.items:
                match item.WhichOneof("item"):
                    case "event":
                        assert item.event.seq == self.seq + 1
                        self.seq = item.event.seq
                    case "watch_ended":
                        return item.watch_ended
                    case _:
                        pass
        return None


async def test_a_gateway_that_stalls_holds_its_own_bound_and_is_told(service: Service, taken: Taken) -> None:
    talk = await service.start()
    async with attach_channel(service.target) as slow, attach_channel(service.target) as quick:
        stalled = Gateway(SessionServiceStub(slow).Attach(), service.token())
        await stalled.watch(talk)
        await stalled.read_to(1)
        of_stalled = taken.newest()
        other = Gateway(SessionServiceStub(quick).Attach(), service.token())
        await other.watch(talk)
        for _ in range(FAST_ROUNDS):
            seq = await talk.say(EVENT, times=ROUND)
            await asyncio.gather(stalled.read_to(seq), other.read_to(seq))
        for _ in range(STALLED_ROUNDS):
            await other.read_to(await talk.say(EVENT, times=ROUND))

        bound = ATTACH_LOOKAHEAD_BYTES + MAX_RESPONSE_BYTES + STREAM_BYTES
        assert 0 < of_stalled() - stalled.read_bytes <= bound
        ended = await stalled.read_to(2**32)
        assert ended is not None
        assert (ended.reason, ended.last_seq) == (pb.ERROR_REASON_SLOW_CONSUMER, stalled.seq)
        assert other.seq > stalled.seq
        assert await other.read_to(await talk.say(EVENT)) is None


async def last_event(client: SocketClient, seq: int) -> None:
    """Receive events up to this one."""
    while (await client.receive()).get("seq") != seq:
        pass


def protocol_of(stack: Stack, client: ManualSocket) -> LineProtocol:
    """Return the bridge's end of a socket."""
    found = [protocol for protocol in stack.bridge.server.server_state.connections if is_end_of(protocol, client)]
    assert len(found) == 1
    assert isinstance(found[0], LineProtocol)
    return found[0]


def is_end_of(protocol: object, client: ManualSocket) -> bool:
    return isinstance(protocol, LineProtocol) and protocol.client is not None and protocol.client[1] == client.port


def seqs_of(frames: list[tuple[int, bytes]]) -> list[int]:
    texts = [json.loads(payload) for opcode, payload in frames if opcode == TEXT]
    return [text["seq"] for text in texts if "seq" in text]


async def test_the_bridge_waits_for_a_socket_that_pauses_and_goes_on(stack: Stack) -> None:
    talk = await stack.service.start()
    async with manual_socket(stack.bridge.port, stack.service.token()) as client:
        await client.next_text("connection_established")
        await client.say("resume", run_id=talk.run_id)
        await client.next_text("agent_started")
        protocol = protocol_of(stack, client)
        last_seq = 0
        for _ in range(ROUND):
            last_seq = await talk.say(EVENT, times=ROUND)
        await eventually(lambda: not protocol.writable.is_set(), what="the line is full")
        assert protocol.transport.get_write_buffer_size() <= STREAM_BYTES

        seqs = [1]
        while seqs[-1] < last_seq:
            await client.read()
            seqs += seqs_of(client.frames())
        assert seqs == list(range(1, last_seq + 1))


async def test_a_socket_that_stalls_holds_its_bound_and_is_closed_alone(stack: Stack) -> None:
    talk = await stack.service.start()
    async with (
        manual_socket(stack.bridge.port, stack.service.token()) as stalled,
        stack.signed_in() as other,
    ):
        await stalled.next_text("connection_established")
        for client in (stalled, other):
            await (client.say if isinstance(client, ManualSocket) else client.send)("resume", run_id=talk.run_id)
        await stalled.next_text("agent_started")
        await last_event(other, 1)
        protocol = protocol_of(stack, stalled)
        held = 0
        for _ in range(STALLED_ROUNDS):
            await last_event(other, await talk.say(EVENT, times=ROUND))
            held = max(held, protocol.transport.get_write_buffer_size())

        assert 0 < held <= STREAM_BYTES
        closed = stack.bridge.bridge.metrics.registry.get_sample_value
        assert closed("apex_bridge_sockets_closed_total", {"code": str(int(CloseCode.SLOW_CONSUMER))}) == 1
        await last_event(other, await talk.say(EVENT))
