"""The bridge reads from a socket whatever else it does for it: writing, or waiting for the service.

Otherwise a pong is not read while much is written, and a healthy client on a slow line is closed; and a stop waits
behind what it shall stop.
"""

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Final

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.bridge_server import running_bridge
from tests.support.gates import Gate
from tests.support.manual_socket import PING, PONG, TEXT, manual_socket
from tests.support.scripted_service import Context, ScriptedService
from tests.support.stack import Stack, open_stack
from tests.support.waiting import eventually
from ws_bridge.line import LineProtocol

MESSAGE_ID: Final = "11111111-1111-4111-8111-111111111111"
INTERVAL_S: Final = 0.2
TIMEOUT_S: Final = 1.0

SEND_BUFFER_BYTES: Final = 16 * 1024

EVENT: Final = 30_000
ROUND: Final = 10
"""Events of that many characters, said whenever a reader has all but twice as many."""

LONG_S: Final = 2 * (INTERVAL_S + TIMEOUT_S)
"""How long a slow reader reads, in seconds; a silent one is closed after half of it."""

SLOW_READ_S: Final = 0.002
"""Between two reads of a slow reader, of a few KiB each."""


def only_line(stack: Stack) -> LineProtocol:
    """Return the bridge's end of the one socket."""
    (line,) = [found for found in stack.bridge.server.server_state.connections if isinstance(found, LineProtocol)]
    return line


async def test_a_slow_reader_that_answers_pings_is_kept(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path, heartbeat_interval_s=INTERVAL_S, heartbeat_timeout_s=TIMEOUT_S) as stack,
        manual_socket(stack.bridge.port, stack.service.token()) as client,
    ):
        talk = await stack.service.start()
        await client.next_text("connection_established")
        await client.say("resume", run_id=talk.run_id)
        await client.next_text("agent_started")
        line = only_line(stack)
        # The kernel keeps little of what is written, so that the rest waits where the bridge can see it.
        line.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        seqs, said, pings, looks, full = [1], 1, 0, 0, 0
        begun = time.monotonic()
        while time.monotonic() - begun < LONG_S:
            if said - seqs[-1] < 2 * ROUND:
                said = await talk.say(EVENT, times=ROUND)
            await asyncio.sleep(SLOW_READ_S)  # this is how it reads, and nobody waits for it
            looks, full = looks + 1, full + (not line.writable.is_set())
            await client.read()
            for opcode, payload in client.frames():
                if opcode == PING:
                    await client.send(PONG, payload)
                    pings += 1
                elif opcode == TEXT:
                    frame = json.loads(payload)
                    if frame["type"] == "ping":
                        await client.say("pong")
                    elif "seq" in frame:
                        seqs.append(frame["seq"])

        assert pings
        assert full > looks / 3, (full, looks)  # the bridge was waiting to write most of the time
        assert seqs == list(range(1, len(seqs) + 1))
        assert only_line(stack) is line
        assert not line.close_sent


async def test_a_stop_is_taken_while_the_line_is_full(stack: Stack) -> None:
    async with manual_socket(stack.bridge.port, stack.service.token()) as client:
        talk = await stack.service.start()
        await client.next_text("connection_established")
        await client.say("resume", run_id=talk.run_id)
        await client.next_text("agent_started")
        line = only_line(stack)
        await talk.say(EVENT, times=10 * ROUND)
        await eventually(lambda: not line.writable.is_set(), what="the line is full")
        await client.say("stop_agent", run_id=talk.run_id)
        await eventually(lambda: not stack.service.speaker.talks, what="the run has been stopped")
        assert not line.writable.is_set()
        assert (await client.next_text("agent_completed"))["run_id"] == talk.run_id


class HeldService(ScriptedService):
    """Holds messages back until its gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(is_open=False)
        self.script = []

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        await self.gate.passage()
        return await super().StartRun(request, context)


async def test_pings_and_a_stop_are_taken_while_a_call_is_under_way() -> None:
    async with (
        HeldService() as service,
        running_bridge(service.target, heartbeat_interval_s=0.1, heartbeat_timeout_s=TIMEOUT_S) as bridge,
        bridge.signed_in() as client,
    ):
        await client.send("user_message", content="Hello", message_id=MESSAGE_ID)
        await service.gate.reached()
        await client.send("stop_agent", message_id=MESSAGE_ID)
        for nonce in range(3):
            await client.send("ping", nonce=nonce)
            pong = (await client.receive_until("pong"))[-1]
            assert pong["payload"]["nonce"] == nonce
        received = bridge.bridge.metrics.registry.get_sample_value("apex_bridge_frames_received_total")
        assert received == 5
        assert [name for name, _ in service.calls] == []

        service.gate.open()
        frames = await client.receive_until("agent_completed")
        assert [name for name, _ in service.calls] == ["StartRun", "CancelRun"]
        assert frames[-1]["payload"]["status"] == "cancelled"
