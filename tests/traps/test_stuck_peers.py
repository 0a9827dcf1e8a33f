"""A peer that neither reads nor answers is freed in time, though what was written to it cannot leave.

Whoever waits for the send buffer first, as a library's own heartbeat does, waits for ever.
"""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.descriptors import open_descriptors
from tests.support.manual_socket import manual_socket
from tests.support.stack import Stack, open_stack
from tests.support.tasks import NewTasks
from tests.support.timing import fastest
from tests.support.waiting import eventually
from ws_bridge.line import LineProtocol
from ws_bridge.sockets import TICK_MS

INTERVAL_S: Final = 0.4
TIMEOUT_S: Final = 0.8
SLACK_S: Final = 2 * TICK_MS / 1000
"""Both times are looked at with every tick."""

EVENT: Final = 30_000
EVENTS: Final = 100
"""Fewer than the bridge keeps for a socket, more than the kernel takes."""


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, heartbeat_interval_s=INTERVAL_S, heartbeat_timeout_s=TIMEOUT_S) as running:
        yield running


def lines(stack: Stack) -> list[LineProtocol]:
    """Return the bridge's ends of all sockets."""
    return [found for found in stack.bridge.server.server_state.connections if isinstance(found, LineProtocol)]


async def test_a_stuck_peer_is_freed_with_its_seat_its_tasks_and_its_descriptor(stack: Stack) -> None:
    async def measure() -> float:
        talk = await stack.service.start()
        tasks, descriptors = NewTasks(), open_descriptors()
        async with manual_socket(stack.bridge.port, stack.service.token()) as client:
            await client.next_text("connection_established")
            begun = time.monotonic()
            await client.say("resume", run_id=talk.run_id)
            await client.next_text("agent_started")
            (line,) = lines(stack)
            await talk.say(EVENT, times=EVENTS)
            await eventually(lambda: not line.writable.is_set(), what="the line is full")
            await eventually(lambda: not lines(stack), what="the connection is broken")
            span = time.monotonic() - begun

            assert len(stack.bridge.bridge.sockets) == 0
            await stack.service.metrics.becomes("apex_sessions", 0)
            await stack.service.metrics.becomes("apex_watches", 0)
            await tasks.gone()
            await eventually(lambda: open_descriptors() <= descriptors + 1, what="only the peer's own is left")
            await client.ended()
        talk.finish()
        await eventually(lambda: not stack.service.speaker.talks, what="the run has ended")
        return span

    limit_s = INTERVAL_S + TIMEOUT_S + SLACK_S
    assert await fastest(measure, enough_s=limit_s) < limit_s
