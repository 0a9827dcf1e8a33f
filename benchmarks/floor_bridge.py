"""The floor's bridge: gRPC messages in, JSON frames out, and nothing else; run with `python -m`.

The same libraries as the product's bridge: uvicorn with its sans-IO WebSocket protocol, grpc.aio, protobuf, msgspec.
"""

import argparse
import asyncio
import itertools
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import msgspec
import uvicorn
import uvloop

from benchmarks.floor_service import MULTIPLEXED, SINGLE
from generated.apex.agent.v1 import agent_pb2 as pb

OPTIONS: Final = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024 * 1024))
"""The same as those of the product's `Attach` call."""

BACKLOG: Final = 2048

Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own types
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Json: TypeAlias = "dict[str, str | int | Json]"

_ENCODER = msgspec.json.Encoder()


def frame(event: pb.AgentEvent) -> str:
    """Return an event as JSON text."""
    case = event.WhichOneof("event") or ""
    time = event.emit_time
    envelope = {
        "type": case,
        "run_id": event.run_id,
        "thread_id": event.thread_id,
        "agent_name": event.agent_name,
        "timestamp": time.seconds * 1_000_000 + time.nanos // 1000,
        "payload": _payload(event, case),
    }
    return _ENCODER.encode(envelope).decode()


def _payload(event: pb.AgentEvent, case: str) -> Json:
    match case:
        case "partial_result":
            return {"message_id": event.partial_result.message_id, "text": event.partial_result.text}
        case "agent_thinking":
            thinking = event.agent_thinking
            return {"thought": thinking.thought, "step": thinking.step, "total_steps": thinking.total_steps}
        case "tool_executing":
            call = event.tool_executing
            return {"tool_call_id": call.tool_call_id, "tool_name": call.tool_name, "description": call.description}
        case "tool_completed":
            result = event.tool_completed
            return {"tool_call_id": result.tool_call_id, "status": result.status, "summary": result.result_summary}
        case "agent_started":
            return {"agent_id": event.agent_started.agent_id, "message": event.agent_started.message}
        case _:
            return {"agent_id": event.agent_completed.agent_id, "message": event.agent_completed.message}


class Bridge:
    """The ASGI application: every text frame of a client asks for a run."""

    def __init__(self, channel: grpc.aio.Channel, *, is_multiplexed: bool) -> None:
        self._single: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(SINGLE)
        self._multiplexed: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(MULTIPLEXED)
        self._is_multiplexed = is_multiplexed
        self._requests: asyncio.Queue[bytes] = asyncio.Queue()
        self._frames: dict[str, asyncio.Queue[str]] = {}
        self._ids = itertools.count(1)
        self._streams: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        await receive()
        await send({"type": "websocket.accept"})
        session_id = f"{next(self._ids):036}"
        frames = self._frames[session_id] = asyncio.Queue()
        writing = asyncio.create_task(_write(frames, send))
        try:
            while (message := await receive())["type"] == "websocket.receive":
                content = msgspec.json.decode(message["text"])["payload"]["content"]
                run_id = f"{next(self._ids):036}"
                request = pb.WatchRunItem(session_id=session_id, watch_id=run_id, run_id=content)
                await self._ask(request.SerializeToString(), send)
        finally:
            del self._frames[session_id]
            writing.cancel()

    async def _ask(self, request: bytes, send: Send) -> None:
        if self._is_multiplexed:
            await self._requests.put(request)
            return
        stream = asyncio.create_task(self._stream(request, send))
        self._streams.add(stream)
        stream.add_done_callback(self._streams.discard)

    async def _stream(self, request: bytes, send: Send) -> None:
        async for data in self._single(request):
            await send({"type": "websocket.send", "text": frame(pb.AgentEvent.FromString(data))})

    async def attach(self) -> None:
        """Pass on what comes for all sockets."""
        async for data in self._multiplexed(self._wanted()):
            for item in pb.AttachResponse.FromString(data).items:
                frames = self._frames.get(item.session_id)
                if frames is not None:
                    frames.put_nowait(frame(item.event))

    async def _wanted(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._requests.get()


async def _write(frames: asyncio.Queue[str], send: Send) -> None:
    """Send what is put into a socket's queue: without one, a socket that does not read would hold up all others."""
    while True:
        await send({"type": "websocket.send", "text": await frames.get()})


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = sockets[0].getsockname()[1] if sockets else 0
        sys.stdout.write(f"floor bridge listening on http://127.0.0.1:{port}\n")
        sys.stdout.flush()


async def serve(target: str, *, is_multiplexed: bool) -> None:
    """Serve until SIGTERM."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        bridge = Bridge(channel, is_multiplexed=is_multiplexed)
        config = uvicorn.Config(
            bridge,
            loop="none",
            http="httptools",
            ws="websockets-sansio",
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        attaching = asyncio.create_task(bridge.attach()) if is_multiplexed else None
        await _Server(config).serve(sockets=[listener])
        if attaching is not None:
            attaching.cancel()


def main() -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.floor_bridge")
    parser.add_argument("--target", required=True, help="host:port of the floor's service")
    parser.add_argument("--multiplexed", action="store_true", help="one call for all runs")
    arguments = parser.parse_args()
    target: str = arguments.target
    is_multiplexed: bool = arguments.multiplexed
    uvloop.run(serve(target, is_multiplexed=is_multiplexed))


if __name__ == "__main__":
    main()
