"""The floor's service: streams a run's events and does nothing else; run with `python -m`.

No log, no sign-in, no sequence, no bound on what waits. `Single` sends one gRPC message per event, `Multiplexed` all
runs of one gateway in one call, with whatever is ready in each message.
"""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Final, TypeAlias

import grpc
import grpc.aio
import uvloop

from benchmarks.workload import Script, pieces, script_of
from generated.apex.agent.v1 import agent_pb2 as pb

SERVICE: Final = "benchmarks.Floor"
SINGLE: Final = f"/{SERVICE}/Single"
MULTIPLEXED: Final = f"/{SERVICE}/Multiplexed"

OPTIONS: Final = (("grpc.http2.bdp_probe", 0),)
"""The same as the product's: without probing the bandwidth."""

MAX_ITEMS: Final = 2_000
"""Events in one message, so that it stays below what gRPC permits."""

YIELD_EVENTS: Final = 256
"""After so many events at full speed a run lets others go on, as the product's bound makes it."""

Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]


async def events(run_id: str, script: Script) -> AsyncIterator[pb.AgentEvent]:
    """Yield the events of a run."""
    event = _event(run_id)
    event.agent_started.agent_id = "supervisor"
    event.agent_started.message = "Message received."
    yield event
    for number in range(1, script.tools + 1):
        for event in _tool_events(run_id, number, script.tools):
            yield event
    count = 0
    async for piece in pieces(script):
        event = _event(run_id)
        event.partial_result.message_id = run_id
        event.partial_result.text = piece
        yield event
        count += 1
        if count % YIELD_EVENTS == 0:
            await asyncio.sleep(0)
    event = _event(run_id)
    event.agent_completed.agent_id = "supervisor"
    event.agent_completed.status = pb.COMPLETION_STATUS_SUCCESS
    event.agent_completed.message = "Done."
    yield event


def _event(run_id: str) -> pb.AgentEvent:
    event = pb.AgentEvent(run_id=run_id, thread_id=run_id, agent_name="data")
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    event.emit_time.seconds = seconds
    event.emit_time.nanos = nanos
    return event


def _tool_events(run_id: str, number: int, total: int) -> list[pb.AgentEvent]:
    thinking, executing, completed = _event(run_id), _event(run_id), _event(run_id)
    thinking.agent_thinking.thought = "I look at the requests by model."
    thinking.agent_thinking.step, thinking.agent_thinking.total_steps = number, total
    call = executing.tool_executing
    call.tool_call_id, call.tool_name, call.description = f"call-{number}", "usage_summary", "Requests by model"
    call.tool_args.update({"by": "model"})
    call.effect = pb.TOOL_EFFECT_READ_ONLY
    result = completed.tool_completed
    result.tool_call_id, result.tool_name, result.result_summary = call.tool_call_id, call.tool_name, "One model."
    result.status, result.execution_time_ms = pb.TOOL_STATUS_SUCCESS, 1
    result.result.update({"rows": number, "model": "gpt-4o"})
    return [thinking, executing, completed]


async def single(request: bytes, context: Context) -> None:
    """Stream one run: a message per event."""
    wanted = pb.WatchRunItem.FromString(request)
    async for event in events(wanted.watch_id, script_of(wanted.run_id)):
        await context.write(event.SerializeToString())


class Multiplexer:
    """One gateway's call: all its runs."""

    def __init__(self) -> None:
        self._waiting: list[pb.AttachResponse.Item] = []
        self._ready = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()

    async def serve(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Start the runs that are asked for, and send what they say."""
        sending = asyncio.create_task(self._send(context))
        try:
            async for request in requests:
                run = asyncio.create_task(self._play(pb.WatchRunItem.FromString(request)))
                self._runs.add(run)
                run.add_done_callback(self._runs.discard)
        finally:
            for task in (sending, *self._runs):
                task.cancel()

    async def _play(self, wanted: pb.WatchRunItem) -> None:
        async for event in events(wanted.watch_id, script_of(wanted.run_id)):
            self._waiting.append(pb.AttachResponse.Item(session_id=wanted.session_id, event=event))
            self._ready.set()

    async def _send(self, context: Context) -> None:
        while True:
            await self._ready.wait()
            items, self._waiting = self._waiting[:MAX_ITEMS], self._waiting[MAX_ITEMS:]
            if not self._waiting:
                self._ready.clear()
            await context.write(pb.AttachResponse(items=items).SerializeToString())


async def multiplexed(requests: AsyncIterator[bytes], context: Context) -> None:
    """Stream all runs of one gateway: whatever is ready in each message."""
    await Multiplexer().serve(requests, context)


async def serve() -> None:
    """Serve until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    server = grpc.aio.server(options=OPTIONS)
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Single": grpc.unary_stream_rpc_method_handler(single),
        "Multiplexed": grpc.stream_stream_rpc_method_handler(multiplexed),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"floor service listening on 127.0.0.1:{port}\n")
    sys.stdout.flush()
    await stopping.wait()
    await server.stop(1)


if __name__ == "__main__":
    uvloop.run(serve())
