"""One socket between its line and the service: what is written when, and where the bridge itself fails."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Sequence

import pytest

from ws_bridge import effects as fx
from ws_bridge.calls import Calls
from ws_bridge.clock import Clock
from ws_bridge.close_codes import CloseCode
from ws_bridge.endpoint import Connections, Endpoint
from ws_bridge.frames import ClientFrame
from ws_bridge.items import RunEvents, SessionReady
from ws_bridge.limits import SessionLimits
from ws_bridge.line import Line, Listener
from ws_bridge.metrics import BridgeMetrics
from ws_bridge.outbox import OutboxLimits
from ws_bridge.session import Session
from ws_bridge.upstream import Upstream

RUN = "01900000-0000-7000-8000-000000000001"
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
        self.writable = True
        self.writes: list[list[bytes]] = []
        self.closed: list[CloseCode] = []
        self.aborted = asyncio.Event()

    @property
    def frames(self) -> list[bytes]:
        return [data for write in self.writes for data in write]

    def listen(self, listener: Listener) -> None:
        """Nothing ever comes by itself."""

    def send(self, frames: Sequence[bytes]) -> None:
        assert not self.closed
        self.writes.append(list(frames))

    def close(self, code: CloseCode, reason: str) -> None:
        assert reason
        self.closed.append(code)

    def abort(self) -> None:
        self.aborted.set()


class BrokenSession(Session):
    """A session with a defect."""

    def on_frame(self, now_ms: int, frame: ClientFrame, error_id: str) -> list[fx.Effect]:
        raise LookupError(f"very internal: {now_ms} {frame} {error_id}")


class Served:
    """An endpoint on a recorded line, with what it tells others."""

    def __init__(self, session: Session, limits: OutboxLimits | None = None) -> None:
        self.line, self.upstream, self.told = RecordedLine(), Upstream(), list[str]()
        shared = Connections(self.upstream, Calls(0), Clock(), unused, BridgeMetrics(), limits or OutboxLimits(), 8192)
        self.endpoint = Endpoint(
            "s",
            session,
            self.line,
            shared,
            on_token_brought=lambda: self.told.append("token brought"),
            on_end=lambda: self.told.append("end"),
        )
        self.endpoint.begin(None)


def watching(limits: OutboxLimits | None = None) -> Served:
    """Return an endpoint whose session watches a run from its beginning."""
    served = Served(Session("s", LIMITS, 0, attached=True), limits)
    served.endpoint.on_frame('{"type":"authenticate","payload":{"token":"t"}}')
    served.endpoint.on_item(SessionReady("alice", "2026-11-21T09:30:00.000000Z", ()))
    served.endpoint.on_frame(json.dumps({"type": "resume", "payload": {"run_id": RUN}}))
    assert [json.loads(data)["type"] for data in served.line.frames] == ["connection_established"]
    served.line.writes.clear()
    return served


def unused(work: Coroutine[None, None, None]) -> None:
    raise AssertionError(f"no call was expected: {work}")


def test_a_defect_at_a_frame_is_told_logged_and_ends_the_socket(caplog: pytest.LogCaptureFixture) -> None:
    served = Served(BrokenSession("s", LIMITS, 0, attached=False))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            served.endpoint.on_frame("{}")
        served.endpoint.on_gone()

    (payload,) = [json.loads(data)["payload"] for data in served.line.frames]
    assert (payload["code"], payload["retryable"]) == ("INTERNAL", True)
    assert "very internal" not in payload["message"]
    assert served.line.closed == [CloseCode.RESTART]
    (record,) = caplog.records
    assert payload["error_id"] in record.getMessage()
    assert "very internal" in caplog.text
    assert not len(served.upstream)


def test_the_events_of_a_batch_are_one_write() -> None:
    served = watching()
    served.endpoint.on_item(RunEvents("1", 1, [b"1", b"2", b"3"], terminal=False))
    served.endpoint.on_item(RunEvents("1", 4, [b"4"], terminal=True))
    assert served.line.writes == [[b"1", b"2", b"3"], [b"4"]]


def test_what_a_peer_does_not_read_waits_in_order() -> None:
    served = watching()
    served.line.writable = False
    served.endpoint.on_item(RunEvents("1", 1, [b"x" * 40_000, b"y" * 40_000], terminal=False))
    served.endpoint.on_item(RunEvents("1", 3, [b"z"], terminal=False))
    assert served.line.writes == []

    served.line.writable = True
    served.endpoint.on_writable()
    assert [[data[:1] for data in write] for write in served.line.writes] == [[b"x"], [b"y", b"z"]]


def test_a_close_comes_behind_what_waits() -> None:
    served = watching()
    served.line.writable = False
    served.endpoint.on_item(RunEvents("1", 1, [b"1"], terminal=False))
    with asyncio.Runner() as runner:
        runner.run(in_loop(lambda: served.endpoint.drain(1000)))
    served.endpoint.on_writable()  # it was, but is not any more
    assert not served.line.closed

    served.line.writable = True
    served.endpoint.on_writable()
    assert served.line.frames[0] == b"1"
    assert json.loads(served.line.frames[1])["type"] == "server_draining"
    assert served.line.closed == [CloseCode.DRAINING]


async def in_loop(action: Callable[[], None]) -> None:
    action()


async def test_a_peer_that_never_reads_what_waits_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ws_bridge.endpoint.FLUSH_GRACE_S", 0.01)
    served = watching()
    served.line.writable = False
    served.endpoint.on_item(RunEvents("1", 1, [b"1"], terminal=False))
    served.endpoint.drain(1000)
    await served.line.aborted.wait()
    assert not served.line.closed


def test_a_slow_peer_loses_what_waits_and_is_closed_at_once() -> None:
    served = watching(OutboxLimits(max_frames=2))
    served.line.writable = False
    served.endpoint.on_item(RunEvents("1", 1, [b"1", b"2"], terminal=False))
    assert not served.line.closed
    served.endpoint.on_item(RunEvents("1", 3, [b"3"], terminal=False))
    assert served.line.closed == [CloseCode.SLOW_CONSUMER]

    served.line.writable = True
    served.endpoint.on_writable()
    assert served.line.writes == []


def test_an_end_is_told_once_and_nothing_is_sent_behind_it() -> None:
    served = watching()
    for _ in range(2):
        served.endpoint.on_gone()
    served.endpoint.on_item(RunEvents("1", 1, [b"1"], terminal=False))
    assert served.told == ["token brought", "end"]
    assert served.line.writes == []
    assert not len(served.upstream)
