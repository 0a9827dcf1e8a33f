"""The pumps of one socket, where the bridge itself fails."""

import asyncio
import json
import logging
from collections.abc import Coroutine, Sequence

import pytest

from tests.support.waiting import eventually
from ws_bridge import effects as fx
from ws_bridge.calls import Calls
from ws_bridge.clock import Clock
from ws_bridge.close_codes import CloseCode
from ws_bridge.endpoint import Connections, Endpoint
from ws_bridge.frames import ClientFrame
from ws_bridge.limits import SessionLimits
from ws_bridge.line import Line
from ws_bridge.metrics import BridgeMetrics
from ws_bridge.outbox import OutboxLimits
from ws_bridge.session import Session
from ws_bridge.upstream import Upstream

LIMITS = SessionLimits(
    sign_in_ms=10_000,
    open_ms=10_000,
    heartbeat_interval_ms=45_000,
    heartbeat_timeout_ms=60_000,
    idle_ms=300_000,
    max_frames_per_minute=600,
    max_frame_bytes=8192,
    max_pending_frames=64,
)


class RecordedLine(Line):
    """A line to nowhere, which keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed: list[CloseCode] = []

    async def send(self, frames: Sequence[bytes]) -> None:
        self.sent += frames

    def close(self, code: CloseCode, reason: str) -> None:
        assert reason
        self.closed.append(code)

    def abort(self) -> None:
        """Nothing to break."""


class BrokenSession(Session):
    """A session with a defect."""

    def on_frame(self, now_ms: int, frame: ClientFrame, error_id: str) -> list[fx.Effect]:
        raise LookupError(f"very internal: {now_ms} {frame} {error_id}")


def unused(work: Coroutine[None, None, None]) -> None:
    raise AssertionError(f"no call was expected: {work}")


async def test_a_defect_at_a_frame_is_told_logged_and_ends_the_socket(caplog: pytest.LogCaptureFixture) -> None:
    line, upstream, released = RecordedLine(), Upstream(), list[bool]()
    shared = Connections(upstream, Calls(0), Clock(), unused, BridgeMetrics(), OutboxLimits(), 8192)
    session = BrokenSession("s", LIMITS, 0, attached=False)
    endpoint = Endpoint("s", session, line, shared, lambda: released.append(True))
    messages: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    with caplog.at_level(logging.ERROR):
        serving = asyncio.create_task(endpoint.run(messages.get, None))
        for _ in range(3):
            messages.put_nowait({"type": "websocket.receive", "text": "{}"})
        await eventually(lambda: bool(line.closed), what="the close")
        messages.put_nowait({"type": "websocket.disconnect"})
        await serving

    (payload,) = [json.loads(data)["payload"] for data in line.sent]
    assert (payload["code"], payload["retryable"]) == ("INTERNAL", True)
    assert "very internal" not in payload["message"]
    assert line.closed == [CloseCode.RESTART]
    (record,) = caplog.records
    assert payload["error_id"] in record.getMessage()
    assert "very internal" in caplog.text
    assert not len(upstream)
