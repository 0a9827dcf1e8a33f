"""Clients that write down all that they send, are promised and see, while the service or the bridge dies.

Each stands for a way of using Apex: a socket that stays, a socket that comes and goes, a client that lost its ack and
sends again, a service that calls over gRPC. None of them repairs what it sees: a repeated event is written down twice.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Final

import grpc
import msgspec
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import AgentServiceStub
from tests.support.bridge_server import Frame, SocketClient
from tests.support.crashing_service_main import PAY, PIECES, Script
from tests.support.deployment import Deployment
from tests.support.history import Ack, Form, Seen, Sent
from ws_bridge.close_codes import Reason
from ws_bridge.wire.events import TERMINAL_EVENTS, is_terminal

if TYPE_CHECKING:  # exists for the type checker only
    from generated.apex.agent.v1.agent_pb2_grpc import AgentServiceAsyncStub

COME_BACK_S: Final = 0.05
"""How long a client waits before it tries again."""

EVENTS_PER_CONNECTION: Final = 3
"""After so many events a socket that comes and goes breaks its line."""

CALL_TIMEOUT_S: Final = 90.0
WATCH_RUN: Final = "/apex.agent.v1.AgentService/WatchRun"
CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
)
LINE_LOST: Final = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, EOFError)


class UnexpectedFrameError(AssertionError):
    """A client was told what nothing in its round is a reason for."""


@dataclass(slots=True)
class Notebook:
    """What all clients of a round have written down."""

    sent: list[Sent] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame and when it came, monotonic, in seconds."""

    time_s: float
    frame: Frame
    text: bytes

    @property
    def kind(self) -> str:
        """The frame's type."""
        return str(self.frame["type"])


async def receive(client: SocketClient) -> Arrival:
    """Return the next frame. No client here does anything wrong: an error may only say that the service is away.

    Raises `ConnectionError` when it was away for so long that the socket is of no use.
    """
    text = await client.connection.recv(decode=False)
    arrival = Arrival(time.monotonic(), msgspec.json.decode(text), text)
    if arrival.kind == "error":
        error = arrival.frame["payload"]
        if error["code"] != Reason.SERVICE_UNAVAILABLE:
            raise UnexpectedFrameError(text.decode())
        if error["request_type"] == "authenticate":
            raise ConnectionError(error["message"])
    return arrival


def message(script: Script) -> str:
    """Return a message that is played so, like no other."""
    return f"{script} {uuid.uuid4()}"


class KeptSocket:
    """A client that keeps its socket to the end of all its runs. `arrivals` are all its frames, in order.

    It sends `scripts`, all but the first into the thread that the first one made if `one_thread`, and follows the runs
    that it is given besides. It stops the runs whose script waits for that.
    """

    def __init__(
        self,
        apex: Deployment,
        notebook: Notebook,
        user_id: str,
        scripts: Sequence[Script] = (),
        *,
        one_thread: bool = False,
    ) -> None:
        self.arrivals: list[Arrival] = []
        self.acked: asyncio.Queue[Ack] = asyncio.Queue()
        self._apex = apex
        self._notebook = notebook
        self._user_id = user_id
        self._scripts = scripts
        self._one_thread = one_thread
        self._sent: dict[str, tuple[Sent, dict[str, str]]] = {}
        self._given: dict[str, Script] = {}
        self._runs: dict[str, Script] = {}
        self._items: dict[str, list[bytes]] = {}
        self._stopped: set[str] = set()
        self._ended: set[str] = set()

    def give(self, run_id: str, script: Script) -> None:
        """Let it follow this run, too, from its beginning. Only before `live`."""
        self._given[run_id] = script

    async def live(self, together: asyncio.Barrier | None = None) -> None:
        """Do all of it, until every run has ended; begin, with an open socket, when everybody is `together`."""
        async with self._apex.socket(self._user_id) as client:
            await client.expect("connection_established")
            if together is not None:
                await together.wait()
            for run_id, script in self._given.items():
                self._follow(run_id, script)
                await client.send("resume", run_id=run_id, after_seq=0)
            now, later = (self._scripts[:1], self._scripts[1:]) if self._one_thread else (self._scripts, ())
            for script in now:
                await self._send(client, script)
            while len(self._ended) < len(self._scripts) + len(self._given):
                arrival = await receive(client)
                self.arrivals.append(arrival)
                if arrival.kind == "ack":
                    ack = self._ack(arrival.frame)
                    for script in later:
                        await self._send(client, script, ack.thread_id)
                    later = ()
                elif arrival.kind == "error":
                    await self._again(client, arrival.frame["payload"])
                elif "seq" in arrival.frame:
                    await self._event(client, arrival)
        self._notebook.seen += [
            Seen(f"{self._user_id}, kept socket", run_id, 0, Form.JSON, items) for run_id, items in self._items.items()
        ]

    @property
    def outages(self) -> list[str]:
        """What the bridge told it of the service, in order: `degraded`, `recovered`."""
        told = [arrival.frame["payload"] for arrival in self.arrivals if arrival.kind == "server_status"]
        return [str(status["status"]) for status in told]

    async def _send(self, client: SocketClient, script: Script, thread_id: str = "") -> None:
        sent = Sent(self._user_id, str(uuid.uuid4()), message(script))
        thread = {"thread_id": thread_id} if thread_id else {}
        self._sent[sent.message_id] = sent, thread
        self._notebook.sent.append(sent)
        await client.send("user_message", content=sent.content, message_id=sent.message_id, **thread)

    async def _again(self, client: SocketClient, error: Frame) -> None:
        """Send again what the bridge has given up: the same message under the same key, or the same stop."""
        if error["request_type"] == "stop_agent":
            await client.send("stop_agent", run_id=error["run_id"])
        else:
            sent, thread = self._sent[error["message_id"]]
            await client.send("user_message", content=sent.content, message_id=sent.message_id, **thread)

    def _ack(self, frame: Frame) -> Ack:
        ack = ack_of(self._user_id, frame)
        self._notebook.acks.append(ack)
        self._follow(ack.run_id, Script.of(self._sent[ack.message_id][0].content))
        self.acked.put_nowait(ack)
        return ack

    def _follow(self, run_id: str, script: Script) -> None:
        self._runs[run_id] = script
        self._items[run_id] = []

    async def _event(self, client: SocketClient, arrival: Arrival) -> None:
        frame, run_id = arrival.frame, str(arrival.frame["run_id"])
        if run_id not in self._runs:
            raise UnexpectedFrameError(f"an event before the ack: {arrival.text.decode()}")
        self._items[run_id].append(arrival.text)
        if arrival.kind in TERMINAL_EVENTS:
            self._ended.add(run_id)
        if run_id not in self._stopped and _waits_for_stop(self._runs[run_id], frame):
            self._stopped.add(run_id)
            await client.send("stop_agent", run_id=run_id)


def _waits_for_stop(script: Script, frame: Frame) -> bool:
    payload = frame["payload"]
    match script, frame["type"]:
        case Script.STOP, "partial_result":
            return bool(payload["text"] == PIECES[0])
        case Script.STOP_PAYING, "tool_executing":
            return bool(payload["tool_name"] == PAY)
        case _:
            return False


def ack_of(user_id: str, frame: Frame) -> Ack:
    """Return what an `ack` frame promises."""
    told = frame["payload"]
    return Ack(user_id, told["message_id"], told["run_id"], told["thread_id"], told["user_message_id"])


class ComingSocket:
    """A client that follows one run and comes back whenever its line breaks, after the last event that it saw.

    It breaks the line itself after every few events, if `restless`.
    """

    def __init__(
        self, apex: Deployment, notebook: Notebook, user_id: str, name: str, *, restless: bool = False
    ) -> None:
        self.connections = 0
        self._apex = apex
        self._notebook = notebook
        self._user_id = user_id
        self._name = name
        self._restless = restless

    async def follow(self, run_id: str, after_seq: int = 0, *, reached: asyncio.Event | None = None) -> None:
        """See the run from after the cursor to its end. `reached` is set when a tool is at work."""
        items: list[bytes] = []
        cursor, ended = after_seq, False
        while not ended:
            async with self._connected() as client:
                await client.send("resume", run_id=run_id, after_seq=cursor)
                left = EVENTS_PER_CONNECTION
                while not ended and (left or not self._restless):
                    arrival = await receive(client)
                    if "seq" not in arrival.frame:
                        continue
                    items.append(arrival.text)
                    cursor, left = int(arrival.frame["seq"]), left - 1
                    ended = arrival.kind in TERMINAL_EVENTS
                    if reached is not None and arrival.kind == "tool_executing":
                        reached.set()
        self._notebook.seen.append(Seen(f"{self._user_id}, {self._name}", run_id, after_seq, Form.JSON, items))

    async def send_without_ack(self, script: Script) -> Ack:
        """Send a message and break the line at once; come back and send it again until there is an ack."""
        sent = Sent(self._user_id, str(uuid.uuid4()), message(script))
        self._notebook.sent.append(sent)
        acks: list[Ack] = []
        while not acks:
            async with self._connected() as client:
                await client.send("user_message", content=sent.content, message_id=sent.message_id)
                while self.connections > 1 and not acks:
                    arrival = await receive(client)
                    if arrival.kind == "error":
                        break
                    if arrival.kind == "ack":
                        acks.append(ack_of(self._user_id, arrival.frame))
        self._notebook.acks += acks
        return acks[0]

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[SocketClient]:
        """Give a connection, and break it in the end. When it is lost, that is the end of the body, and no error."""
        async with AsyncExitStack() as stack:
            client = await self._connect(stack)
            with suppress(*LINE_LOST):
                yield client
            client.connection.transport.abort()

    async def _connect(self, stack: AsyncExitStack) -> SocketClient:
        while True:
            try:
                client = await stack.enter_async_context(self._apex.socket(self._user_id))
            except LINE_LOST:
                await asyncio.sleep(COME_BACK_S)
            else:
                self.connections += 1
                return client


class Caller:
    """Another service, which calls over gRPC and tries the next address when one is away."""

    def __init__(self, targets: Sequence[str], notebook: Notebook, user_id: str, token: str) -> None:
        self._targets = targets
        self._notebook = notebook
        self._user_id = user_id
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._tries = 0

    async def start(self, script: Script) -> Ack:
        """Start a run; repeat the call under the same key while its outcome is unknown."""
        sent = Sent(self._user_id, str(uuid.uuid4()), message(script))
        self._notebook.sent.append(sent)
        run = pb.RunAgentRequest(content=sent.content, client_message_id=sent.message_id)
        while True:
            async with self._channel() as channel:
                stub: AgentServiceAsyncStub = AgentServiceStub(channel)
                with Away():
                    told = await stub.StartRun(
                        pb.StartRunRequest(run=run), metadata=self._metadata, timeout=CALL_TIMEOUT_S
                    )
                    ack = Ack(self._user_id, sent.message_id, told.run_id, told.thread_id, told.user_message_id)
                    self._notebook.acks.append(ack)
                    return ack
            await asyncio.sleep(COME_BACK_S)

    async def watch(self, run_id: str, after_seq: int = 0) -> None:
        """See a run from after the cursor to its end with `WatchRun`; go on after the last event when a call breaks."""
        items: list[bytes] = []
        ended = False
        while not ended:
            async with self._channel() as channel:
                call: grpc.aio.UnaryStreamMultiCallable[pb.WatchRunRequest, bytes] = channel.unary_stream(
                    WATCH_RUN, request_serializer=pb.WatchRunRequest.SerializeToString, response_deserializer=None
                )
                request = pb.WatchRunRequest(run_id=run_id, after_seq=after_seq + len(items))
                with Away():
                    async for item in call(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S):
                        items.append(item)
                        ended = is_terminal(pb.AgentEvent.FromString(item))
            if not ended:
                await asyncio.sleep(COME_BACK_S)
        self._notebook.seen.append(Seen(f"{self._user_id}, WatchRun", run_id, after_seq, Form.BYTES, items))

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        target = self._targets[self._tries % len(self._targets)]
        self._tries += 1
        async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
            with suppress(TimeoutError):
                await asyncio.wait_for(channel.channel_ready(), 1)
            yield channel


class Away:
    """Takes it that the service is away, and nothing else, for the end of its body."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE
