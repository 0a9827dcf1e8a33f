"""What one socket does, decided without IO: (client frame | item of the service | tick) → effects.

The same inputs give the same effects: no await, no clock, no chance. `now_ms` is a monotonic clock in milliseconds,
`error_id` a fresh id that names an error in case there is one. Inputs after the end have no effect.

Order: what a client sends is handled in the order in which it came, one call at a time, so that a stop right after
its message works. `ping`, `pong` and `authenticate` do not wait behind a call: they keep the line and the token alive.
"""

from enum import Enum

from ws_bridge import effects as fx
from ws_bridge import frames as fr
from ws_bridge import items as it
from ws_bridge.close_codes import CloseCode, Reason, meaning_of
from ws_bridge.limits import FrameCounter, Heartbeat, SessionLimits, Verdict
from ws_bridge.service_link import REOPEN_MS, Opened, ServiceLink
from ws_bridge.streams import RETRY_MS, Streams

PROTOCOL = "apex.v1"
DEGRADED = "The service cannot be reached right now. Nothing is lost: everything goes on when it is back."
DEFECT = "Something went wrong on our side. Reconnect and resume."
RECOVERED = "The service is back."
TOO_MANY_STREAMS = "This connection follows too many runs. Wait until one ends, or open another connection."
#: A watch that ends with one of these ends because its session does.
ENDS_SESSION = frozenset({CloseCode.SIGN_IN_AGAIN, CloseCode.FORBIDDEN, CloseCode.TOO_MANY_CONNECTIONS})


class Phase(Enum):
    """Where a socket stands."""

    SIGNING_IN = "signing_in"
    OPENING = "opening"
    ESTABLISHED = "established"
    CLOSED = "closed"


class Session:
    """One socket. `attached` says whether the service can be reached now."""

    def __init__(self, connection_id: str, limits: SessionLimits, now_ms: int, *, attached: bool) -> None:
        self._connection_id = connection_id
        self._user_id = ""
        self._limits = limits
        self._phase = Phase.SIGNING_IN
        self._deadline_ms = now_ms + limits.sign_in_ms
        self._active_ms = now_ms
        self._pending: list[tuple[fr.ClientFrame, str]] = []
        self._call: fr.UserMessage | fr.StopAgent | fr.DecideApproval | None = None
        #: Why the service, which can be reached, does not open the session for now.
        self._put_off: fr.Failure | None = None
        self._link = ServiceLink(attached=attached)
        self._streams = Streams()
        self._frames = FrameCounter(limits.max_frames_per_minute)
        self._heartbeat = Heartbeat(limits.heartbeat_interval_ms, limits.heartbeat_timeout_ms, now_ms)

    @property
    def phase(self) -> Phase:
        """Where the socket stands."""
        return self._phase

    # --- the client

    def on_token(self, now_ms: int, token: str) -> list[fx.Effect]:
        """Sign in with a token that came with the upgrade, or with the first `authenticate`."""
        self._phase = Phase.OPENING
        self._deadline_ms = now_ms + self._limits.open_ms
        # An empty one too: who may sign in is the service's to say.
        return [fx.TokenBrought(), *self._link.sign_in(now_ms, token)]

    def on_frame(self, now_ms: int, frame: fr.ClientFrame, error_id: str) -> list[fx.Effect]:
        """Handle a frame of the client, or put it behind those that wait."""
        if self._phase is Phase.CLOSED:
            return []
        refusal = None if isinstance(frame, fr.UserMessage) else self._count(now_ms, frame, error_id)
        if refusal is not None:
            return refusal
        if isinstance(frame, fr.Pong):
            return []  # no sign of a client that wants something: it answers by itself
        self._active_ms = now_ms
        return self._accept(now_ms, frame, error_id)

    def on_pong(self, now_ms: int, number: int) -> list[fx.Effect]:
        """Handle the answer to a `SendPing`."""
        answered = self._heartbeat.heard(now_ms, number) and self._phase is Phase.ESTABLISHED
        return [fx.AnswerProbe()] if answered and self._link.open else []

    def on_gone(self) -> list[fx.Effect]:
        """The peer has closed, or the line broke."""
        known, self._phase = self._phase is not Phase.CLOSED and self._link.known, Phase.CLOSED
        return [fx.CloseSession()] if known else []

    def on_slow(self) -> list[fx.Effect]:
        """The socket's own queue is full: this socket alone is closed."""
        return self._close(CloseCode.SLOW_CONSUMER, "too slow: reconnect and resume", at_once=True)

    def on_defect(self, error_id: str) -> list[fx.Effect]:
        """The bridge itself failed at this socket: a fresh one is the client's way on."""
        return [] if self._phase is Phase.CLOSED else self._end(fr.Failure(Reason.INTERNAL, DEFECT), error_id)

    # --- the service

    def on_attached(self, now_ms: int) -> list[fx.Effect]:
        """The service can be reached (again)."""
        return [] if self._phase is Phase.CLOSED else self._link.attach(now_ms)

    def on_lost(self) -> list[fx.Effect]:
        """The service went away; it has forgotten the session."""
        self._put_off = None
        return self._degrade(attached=False, ask_at_ms=None)

    def on_ready(self, now_ms: int, ready: it.SessionReady, server_time: str, error_id: str) -> list[fx.Effect]:
        """The service has opened the session, or renewed its token. `server_time` is RFC 3339."""
        if self._phase is Phase.CLOSED:
            return []
        match self._link.opened():
            case Opened.RENEWED:
                return []
            case Opened.AGAIN if ready.user_id != self._user_id:
                # A token that came while the service was away; it knew nothing to compare it with.
                failure = fr.Failure(Reason.PERMISSION_DENIED, "The new token belongs to another user.")
                return self._end(failure, error_id)
            case Opened.AGAIN:
                recovered = fx.Send(fr.ServerStatus("recovered", RECOVERED))
                return [recovered, *self._streams.watch_all()]
            case Opened.FIRST:
                self._phase = Phase.ESTABLISHED
                self._user_id = ready.user_id
                limits = self._limits
                self._heartbeat = Heartbeat(limits.heartbeat_interval_ms, limits.heartbeat_timeout_ms, now_ms)
                established = fx.Send(self._established(ready, server_time))
                return [established, *self._work(now_ms)]

    def on_events(self, events: it.RunEvents) -> list[fx.Effect]:
        """Handle events of a run. Those of watches that have ended are dropped."""
        if self._phase is Phase.CLOSED:
            return []
        texts = events.texts
        new = self._streams.take(events.watch_id, events.first_seq, len(texts), terminal=events.terminal)
        if new is None:
            return self._streams.restart(events.watch_id)
        if new == len(texts):
            return [fx.SendEvents(texts)]
        return [fx.SendEvents(texts[-new:])] if new else []

    def on_item(self, now_ms: int, item: it.Item, error_id: str) -> list[fx.Effect]:
        """Handle any other item of the service. Items of watches that have ended are dropped."""
        effects: list[fx.Effect] = []
        match item:
            case _ if self._phase is Phase.CLOSED:
                pass
            case it.RunEvents():
                effects = self.on_events(item)
            case it.WatchEnded():
                effects = self._watch_ended(now_ms, item, error_id)
            case it.ThreadChanged():
                effects = [fx.Send(item.frame)]
            case it.SessionExpiring():
                effects = [fx.Send(fr.AuthExpiring(item.expires_in_ms))]
            case it.SessionProbe():
                effects = [fx.SendPing(self._heartbeat.ping(now_ms, probe=True))]
            case it.SessionEnded():
                effects = self._session_ended(now_ms, item.failure, error_id)
            case it.SessionReady():
                pass
        return effects

    def on_answer(self, now_ms: int, answer: it.Answer, error_id: str) -> list[fx.Effect]:
        """Handle the answer to the call that is under way."""
        call, self._call = self._call, None
        if self._phase is Phase.CLOSED or call is None:
            return []
        effects: list[fx.Effect] = []
        match answer:
            case it.Started() if isinstance(call, fr.UserMessage):
                effects.append(fx.Send(_ack(call.request.client_message_id, answer)))
                if not self._streams.knows(answer.run_id):
                    effects += self._watch(answer.run_id, 0)
            case it.Started() | it.Stopped() | it.Decided():
                pass
            case fr.Failure():
                effects.append(fx.Send(_failed(call, answer, error_id)))
        return effects + self._work(now_ms)

    # --- time, and the bridge itself

    def on_tick(self, now_ms: int, error_id: str) -> list[fx.Effect]:
        """Let time pass. Called a few times a second."""
        match self._phase:
            case Phase.SIGNING_IN if now_ms >= self._deadline_ms:
                text = "No sign-in came in time: the first frame must be authenticate, with a token."
                return self._end(fr.Failure(Reason.UNAUTHENTICATED, text), error_id)
            case Phase.OPENING if now_ms >= self._deadline_ms:
                text = "The service does not answer. Reconnect in a moment."
                return self._end(self._put_off or fr.Failure(Reason.SERVICE_UNAVAILABLE, text), error_id)
            case Phase.OPENING:
                return self._link.ask(now_ms)
            case Phase.ESTABLISHED:
                return self._tick(now_ms)
            case Phase.SIGNING_IN | Phase.CLOSED:
                return []

    def on_drain(self, reconnect_after_ms: int) -> list[fx.Effect]:
        """This bridge is about to end."""
        notice = [fx.Send(fr.ServerDraining(reconnect_after_ms))] if self._phase is Phase.ESTABLISHED else []
        return [*notice, *self._close(CloseCode.DRAINING, "draining: reconnect and resume")]

    def _tick(self, now_ms: int) -> list[fx.Effect]:
        if self._heartbeat.lost(now_ms):
            return self._close(CloseCode.HEARTBEAT_LOST, "no answer to pings", at_once=True)
        if len(self._streams) > 0 or self._call is not None:
            self._active_ms = now_ms
        if now_ms - self._active_ms >= self._limits.idle_ms:
            return self._close(CloseCode.NORMAL, "idle")
        effects = self._link.ask(now_ms)
        if self._link.open:
            effects += self._streams.due(now_ms)
        if self._heartbeat.due(now_ms):
            effects += [fx.SendPing(self._heartbeat.ping(now_ms)), fx.Send(fr.PingFrame())]
        return effects

    # --- frames of the client, in order

    def _accept(self, now_ms: int, frame: fr.ClientFrame, error_id: str) -> list[fx.Effect]:
        """Handle at once what need not wait, and queue the rest."""
        match frame:
            case fr.Refused(fatal=True):
                return self._end(frame.failure, error_id, CloseCode.PROTOCOL_ERROR)
            case fr.Refused(request_type="authenticate") if self._phase is Phase.SIGNING_IN:
                return self._end(frame.failure, error_id, CloseCode.SIGN_IN_AGAIN)
            case fr.Authenticate() if self._phase is Phase.SIGNING_IN:
                return self.on_token(now_ms, frame.token)
            case fr.Authenticate() if self._phase is Phase.ESTABLISHED:
                return self._link.sign_in(now_ms, frame.token)
            case fr.Ping() if self._phase is Phase.ESTABLISHED:
                return [fx.Send(fr.PongFrame(frame.nonce))]
            case _:
                return self._queue(now_ms, frame, error_id)

    def _count(self, now_ms: int, frame: fr.ClientFrame, error_id: str) -> list[fx.Effect] | None:
        """Count a frame; return what to do instead of handling it, or None."""
        verdict = self._frames.count(now_ms)
        if verdict is Verdict.OK:
            return None
        text = f"Too many frames: at most {self._limits.max_frames_per_minute} in a minute."
        failure = fr.Failure(Reason.RATE_LIMITED, text, retry_after_ms=self._frames.retry_after_ms(now_ms))
        if verdict is Verdict.FLOOD or self._phase is not Phase.ESTABLISHED:
            return self._end(failure, error_id)
        return [fx.Send(_failed(frame, failure, error_id))]

    def _queue(self, now_ms: int, frame: fr.ClientFrame, error_id: str) -> list[fx.Effect]:
        if len(self._pending) < self._limits.max_pending_frames:
            self._pending.append((frame, error_id))
            return self._work(now_ms)
        text = f"Too many frames wait for their turn: at most {self._limits.max_pending_frames}."
        failure = fr.Failure(Reason.RATE_LIMITED, text, retry_after_ms=RETRY_MS)
        # A message is counted only here: one that is not even queued costs like any other frame.
        flood = isinstance(frame, fr.UserMessage) and self._frames.count(now_ms) is Verdict.FLOOD
        if flood or self._phase is not Phase.ESTABLISHED:
            return self._end(failure, error_id)
        return [fx.Send(_failed(frame, failure, error_id))]

    def _work(self, now_ms: int) -> list[fx.Effect]:
        """Handle what waits, until a call is under way."""
        effects: list[fx.Effect] = []
        while self._pending and self._call is None and self._phase is Phase.ESTABLISHED:
            effects += self._handle(now_ms, *self._pending.pop(0))
        return effects

    def _handle(self, now_ms: int, frame: fr.ClientFrame, error_id: str) -> list[fx.Effect]:
        effects: list[fx.Effect] = []
        match frame:
            case fr.UserMessage() if not self._streams.full:
                self._call = frame
                effects = [fx.StartRun(self._link.token, frame.request)]
            case fr.Resume() if not self._streams.full or self._streams.streams(frame.run_id):
                effects = self._watch(frame.run_id, frame.after_seq)
            case fr.UserMessage() | fr.Resume():
                failure = fr.Failure(Reason.TOO_MANY_RUNS, TOO_MANY_STREAMS)
                effects = [fx.Send(_failed(frame, failure, error_id))]
            case fr.StopAgent():
                self._call = frame
                effects = [fx.CancelRun(self._link.token, frame.request)]
            case fr.DecideApproval():
                self._call = frame
                effects = [fx.ResolveApproval(self._link.token, frame.request)]
            case fr.Refused():
                effects = [fx.Send(_failed(frame, frame.failure, error_id))]
            case fr.Authenticate():
                effects = self._link.sign_in(now_ms, frame.token)
            case fr.Ping():
                effects = [fx.Send(fr.PongFrame(frame.nonce))]
            case fr.Pong():
                pass
        return effects

    # --- streams

    def _watch(self, run_id: str, after_seq: int) -> list[fx.Effect]:
        effects = self._streams.start(run_id, after_seq)
        return effects if self._link.open else []  # else `watch_all` starts it when the service is back

    def _watch_ended(self, now_ms: int, ended: it.WatchEnded, error_id: str) -> list[fx.Effect]:
        failure = ended.failure
        if failure is not None and (
            meaning_of(failure.reason).outage or meaning_of(failure.reason).close_code in ENDS_SESSION
        ):
            # An outage passes. What ends the session too says so itself, right after this.
            self._streams.retry_later(ended.watch_id, now_ms + (failure.retry_after_ms or RETRY_MS))
            return []
        run_id = self._streams.drop(ended.watch_id)
        if run_id is None or failure is None:
            return []
        return [fx.Send(fr.error_frame(failure, error_id, request_type="resume", run_id=run_id))]

    # --- the session's ends

    def _session_ended(self, now_ms: int, failure: fr.Failure | None, error_id: str) -> list[fx.Effect]:
        if failure is None:
            return []
        if not meaning_of(failure.reason).outage:
            self._link.lose(attached=True)
            refused = None if self._phase is Phase.ESTABLISHED else CloseCode.SIGN_IN_AGAIN
            return self._end(failure, error_id, meaning_of(failure.reason).close_code or refused)
        self._put_off = failure
        return self._degrade(attached=True, ask_at_ms=now_ms + (failure.retry_after_ms or REOPEN_MS))

    def _degrade(self, *, attached: bool, ask_at_ms: int | None) -> list[fx.Effect]:
        was_open = self._link.lose(attached=attached, ask_at_ms=ask_at_ms)
        if self._phase is not Phase.ESTABLISHED or not was_open:
            return []
        return [fx.Send(fr.ServerStatus("degraded", DEGRADED))]

    def _end(self, failure: fr.Failure, error_id: str, code: CloseCode | None = None) -> list[fx.Effect]:
        """Say why, then close with the reason's code."""
        request_type = None if self._phase is Phase.ESTABLISHED else "authenticate"
        said = fx.Send(fr.error_frame(failure, error_id, request_type=request_type))
        code = code or meaning_of(failure.reason).close_code or CloseCode.PROTOCOL_ERROR
        return [said, *self._close(code, failure.message)]

    def _close(self, code: CloseCode, reason: str, *, at_once: bool = False) -> list[fx.Effect]:
        if self._phase is Phase.CLOSED:
            return []
        return [*self.on_gone(), fx.Close(code, reason, at_once=at_once)]

    def _established(self, ready: it.SessionReady, server_time: str) -> fr.ConnectionEstablished:
        return fr.ConnectionEstablished(
            connection_id=self._connection_id,
            user_id=ready.user_id,
            server_time=server_time,
            protocol=PROTOCOL,
            heartbeat_interval_ms=self._limits.heartbeat_interval_ms,
            max_frame_bytes=self._limits.max_frame_bytes,
            token_expires_at=ready.token_expires_at,
            active_runs=ready.active_runs,
        )


def _ack(message_id: str, started: it.Started) -> fr.Ack:
    return fr.Ack(message_id, started.run_id, started.thread_id, started.user_message_id, started.already_existed)


def _failed(frame: fr.ClientFrame, failure: fr.Failure, error_id: str) -> fr.ErrorFrame:
    """Return the error frame that answers a client's frame."""
    request_type: str | None = type(frame).__name__.lower()
    message_id: str | None = None
    run_id: str | None = None
    match frame:
        case fr.UserMessage():
            request_type, message_id = frame.request_type, frame.request.client_message_id
        case fr.StopAgent():
            request_type = "stop_agent"
            message_id, run_id = frame.request.client_message_id or None, frame.request.run_id or None
        case fr.DecideApproval():
            request_type, run_id = "resolve_approval", frame.request.run_id
        case fr.Resume():
            run_id = frame.run_id
        case fr.Refused():
            request_type, message_id, run_id = frame.request_type, frame.message_id, frame.run_id
        case fr.Authenticate() | fr.Ping() | fr.Pong():
            pass
    return fr.error_frame(failure, error_id, request_type=request_type, message_id=message_id, run_id=run_id)
