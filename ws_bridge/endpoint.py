"""One socket between its line and the service: no decisions, and no task of its own.

Whatever comes in goes to the session; what the session wants is done in order. Nothing here waits: what a peer does not
read yet stays in a bounded queue, so a slow socket delays nobody.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Final

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge import effects as fx
from ws_bridge.calls import Calls
from ws_bridge.clock import Clock
from ws_bridge.items import Answer, Item, RunEvents, SessionReady
from ws_bridge.line import Line
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
    """One socket, from its upgrade to its end. Implements `line.Listener` and `upstream.Sink`.

    `on_token_brought` is called once it no longer counts as not signed in, `on_end` once it has ended.
    """

    __slots__ = (
        "_close",
        "_line",
        "_on_end",
        "_on_token_brought",
        "_outbox",
        "_session",
        "_session_id",
        "_shared",
    )

    def __init__(
        self,
        session_id: str,
        session: Session,
        line: Line,
        connections: Connections,
        *,
        on_token_brought: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._session_id = session_id
        self._session = session
        self._line = line
        self._shared = connections
        self._on_token_brought = on_token_brought
        self._on_end: Callable[[], None] | None = on_end
        self._outbox = Outbox(connections.outbox_limits)
        self._close: fx.Close | None = None

    def begin(self, token: str | None) -> None:
        """Serve the socket from now on. `token` came with the upgrade, if any did."""
        self._shared.upstream.add(self._session_id, self)
        if token is not None:
            self._do(self._session.on_token(self._now_ms(), token))
        self._line.listen(self)

    # --- inputs; none of them waits

    def on_item(self, item: Item) -> None:
        """Take an item of the service."""
        match item:
            case RunEvents():
                self._do(self._session.on_events(item))
            case SessionReady():
                server_time = self._shared.clock.time_text()
                self._do(self._session.on_ready(self._now_ms(), item, server_time, self._new_id()))
            case _:
                self._do(self._session.on_item(self._now_ms(), item, self._new_id()))

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

    def on_frame(self, text: str | None) -> None:
        """The client has sent something."""
        self._shared.metrics.received.inc()
        if self._close is not None:
            return  # what a peer still sends behind our close means nothing
        try:
            self._take(text)
        except Exception:  # the border: whatever a client has sent, it is told how it ended
            logger.exception("A frame could not be handled (%s).", self._defect())

    def on_pong(self, number: int) -> None:
        """The peer has answered a ping."""
        self._do(self._session.on_pong(self._now_ms(), number))

    def on_writable(self) -> None:
        """The peer reads again."""
        self._flush()

    def on_gone(self) -> None:
        """The peer is gone, or we have closed."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            self._do(self._session.on_gone())
            self._shared.upstream.remove(self._session_id)
            self._outbox.clear()
            on_end()

    def tick(self) -> None:
        """Let time pass."""
        self._do(self._session.on_tick(self._now_ms(), self._new_id()))

    def drain(self, reconnect_after_ms: int) -> None:
        """The bridge is about to end."""
        self._do(self._session.on_drain(reconnect_after_ms))

    def _take(self, text: str | None) -> None:
        frame = binary_frame() if text is None else client_frame(text, self._shared.max_frame_bytes, self._new_id())
        self._do(self._session.on_frame(self._now_ms(), frame, self._new_id()))

    # --- effects

    def _do(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            self._do_one(effect)

    def _do_one(self, effect: fx.Effect) -> None:
        match effect:
            case fx.SendEvents():
                self._send(effect.texts)
            case fx.Send():
                self._send((frame_json(effect.frame),))
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
            case fx.ResolveApproval():
                self._call(self._shared.calls.resolve_approval(effect.token, effect.request))
            case _:
                self._shared.upstream.send(_request(self._session_id, effect))

    def _send(self, frames: Sequence[bytes]) -> None:
        if self._outbox.put(frames):
            self._flush()
        else:
            logger.warning("A socket reads too slowly and is closed (connection %s).", self._session_id)
            self._do(self._session.on_slow())

    def _flush(self) -> None:
        """Write what waits as long as the peer reads; behind the last of it comes the close, if there is to be one."""
        while self._outbox and self._line.writable:
            frames = self._outbox.take(MAX_WRITE_BYTES)
            self._line.send(frames)
            self._shared.metrics.sent.inc(len(frames))
        if self._close is not None and not self._outbox:
            self._line.close(self._close.code, self._close.reason)

    def _end(self, close: fx.Close) -> None:
        self._close = close
        self._shared.metrics.closed.labels(str(int(close.code))).inc()
        if close.at_once:
            self._outbox.clear()
        if self._outbox:
            asyncio.get_running_loop().call_later(FLUSH_GRACE_S, self._line.abort)
        else:
            self._flush()

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
