"""The pumps of one socket: a reader that always receives, a writer with a bounded queue. No decisions.

Whatever comes in goes to the session; what the session wants is done in order. None of the methods that the service's
side calls waits, so a slow socket delays nobody.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge import effects as fx
from ws_bridge.calls import Calls
from ws_bridge.clock import Clock
from ws_bridge.items import Answer, Item, SessionReady
from ws_bridge.line import Line, LineLostError
from ws_bridge.metrics import BridgeMetrics
from ws_bridge.outbox import Outbox, OutboxLimits
from ws_bridge.session import Session
from ws_bridge.upstream import Upstream
from ws_bridge.wire import items as requests
from ws_bridge.wire.client_frames import binary_frame, client_frame
from ws_bridge.wire.server_frames import frame_json

logger = logging.getLogger(__name__)

MAX_WRITE_BYTES: Final = 64 * 1024
"""Of one write to a socket; a larger frame goes alone."""

FLUSH_GRACE_S: Final = 5.0
"""How long a closing socket may take to read what is queued, in seconds; then it is aborted."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]  # ASGI's own type
StartTask = Callable[[Coroutine[None, None, None]], None]


@dataclass(frozen=True, slots=True)
class Connections:
    """What every socket works with. `start_task` keeps a call alive that outlives its socket."""

    upstream: Upstream
    calls: Calls
    clock: Clock
    start_task: StartTask
    metrics: BridgeMetrics
    outbox_limits: OutboxLimits
    max_frame_bytes: int


class Endpoint:
    """One socket. `on_token_brought` is called once it no longer counts as not signed in; again does no harm."""

    def __init__(
        self,
        session_id: str,
        session: Session,
        line: Line,
        connections: Connections,
        on_token_brought: Callable[[], None],
    ) -> None:
        self._session_id = session_id
        self._session = session
        self._line = line
        self._shared = connections
        self._on_token_brought = on_token_brought
        self._outbox = Outbox(connections.outbox_limits)
        self._close: fx.Close | None = None

    async def run(self, receive: Receive, token: str | None) -> None:
        """Serve the socket until it is closed. `token` came with the upgrade, if any did."""
        upstream = self._shared.upstream
        upstream.add(self._session_id, self)
        self._line.on_pong = self.on_pong
        writer = asyncio.create_task(self._write(), name=f"write-{self._session_id}")
        try:
            if token is not None:
                self._do(self._session.on_token(self._now_ms(), token))
            await self._read(receive)
        finally:
            self._do(self._session.on_gone())
            upstream.remove(self._session_id)
            self._outbox.end(drop=True)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    # --- inputs; none of them waits

    def on_item(self, item: Item) -> None:
        """Take an item of the service."""
        now_ms = self._now_ms()
        if isinstance(item, SessionReady):
            self._do(self._session.on_ready(now_ms, item, self._shared.clock.time_text(), self._new_id()))
        else:
            self._do(self._session.on_item(now_ms, item, self._new_id()))

    def on_attached(self) -> None:
        """The service can be reached."""
        self._do(self._session.on_attached(self._now_ms()))

    def on_lost(self) -> None:
        """The service went away."""
        self._do(self._session.on_lost())

    def on_defect(self) -> str:
        """Something of ours failed: end the socket. Return the error's id, for the log."""
        error_id = self._new_id()
        self._do(self._session.on_defect(error_id))
        return error_id

    def on_pong(self, number: int) -> None:
        """The peer has answered a ping."""
        self._do(self._session.on_pong(self._now_ms(), number))

    def tick(self) -> None:
        """Let time pass."""
        self._do(self._session.on_tick(self._now_ms(), self._new_id()))

    def drain(self, reconnect_after_ms: int) -> None:
        """The bridge is about to end."""
        self._do(self._session.on_drain(reconnect_after_ms))

    # --- pumps

    async def _read(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            self._shared.metrics.received.inc()
            if self._close is not None:
                continue  # what a peer still sends behind our close means nothing
            try:
                self._take(message.get("text"))
            except Exception:  # the border: whatever a client has sent, it is told how it ended
                logger.exception("A frame could not be handled (%s).", self._defect())

    def _take(self, text: object) -> None:
        limit, new_id = self._shared.max_frame_bytes, self._new_id()
        frame = client_frame(text, limit, new_id) if isinstance(text, str) else binary_frame()
        self._do(self._session.on_frame(self._now_ms(), frame, self._new_id()))

    async def _write(self) -> None:
        try:
            while frames := await self._outbox.take(MAX_WRITE_BYTES):
                await self._line.send(frames)
                self._shared.metrics.sent.inc(len(frames))
        except LineLostError:
            return
        if self._close is not None:
            self._line.close(self._close.code, self._close.reason)

    # --- effects

    def _do(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            self._do_one(effect)

    def _do_one(self, effect: fx.Effect) -> None:
        match effect:
            case fx.SendEvent():
                self._send(effect.data)
            case fx.Send():
                self._send(frame_json(effect.frame))
            case fx.SendPing():
                self._line.ping(effect.number)
            case fx.Close():
                self._end(effect)
            case fx.TokenBrought():
                self._on_token_brought()
            case fx.StartRun():
                self._call(self._shared.calls.start_run(effect.token, effect.request))
            case fx.CancelRun():
                self._call(self._shared.calls.cancel_run(effect.token, effect.request))
            case _:
                self._shared.upstream.send(_request(self._session_id, effect))

    def _send(self, data: bytes) -> None:
        if not self._outbox.put(data):
            logger.warning("A socket reads too slowly and is closed (connection %s).", self._session_id)
            self._do(self._session.on_slow())

    def _end(self, close: fx.Close) -> None:
        self._close = close
        self._shared.metrics.closed.labels(str(int(close.code))).inc()
        self._outbox.end(drop=close.at_once)
        if close.at_once:
            self._line.close(close.code, close.reason)  # the writer may hang in the middle of a frame's bytes
        else:
            asyncio.get_running_loop().call_later(FLUSH_GRACE_S, self._line.abort)

    def _call(self, call: Coroutine[None, None, Answer]) -> None:
        async def answer() -> None:
            try:
                result = await call
                self._do(self._session.on_answer(self._now_ms(), result, self._new_id()))
            except Exception:  # the border: without an answer the session would wait for ever
                logger.exception("A call failed in a way that it never should (%s).", self._defect())

        self._shared.start_task(answer())

    def _defect(self) -> str:
        return f"connection {self._session_id}, error_id {self.on_defect()}"

    def _now_ms(self) -> int:
        return self._shared.clock.monotonic_ms()

    def _new_id(self) -> str:
        return self._shared.clock.new_id()


def _request(
    session_id: str, effect: fx.OpenSession | fx.CloseSession | fx.AnswerProbe | fx.WatchRun | fx.Unwatch
) -> pb.AttachRequest:
    match effect:
        case fx.OpenSession():
            return requests.open_session(session_id, effect.token)
        case fx.CloseSession():
            return requests.close_session(session_id)
        case fx.AnswerProbe():
            return requests.session_alive(session_id)
        case fx.WatchRun():
            return requests.watch_run(session_id, effect.watch_id, effect.run_id, effect.after_seq)
        case fx.Unwatch():
            return requests.unwatch(session_id, effect.watch_id)
