"""Items of the Attach call → values of the session, and what the session wants → requests of that call."""

from collections.abc import Iterable, Iterator, Sequence

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge import items as it
from ws_bridge.frames import ActiveRun, Failure, ThreadFrame
from ws_bridge.wire.events import EventTexts, is_terminal
from ws_bridge.wire.values import enum_labels, label, reason_of, time_text

_RUN_STATUSES = enum_labels(pb.RunStatus.DESCRIPTOR)
_CHANGES = enum_labels(pb.ThreadChange.DESCRIPTOR)


def items_of(items: Iterable[pb.AttachResponse.Item], texts: EventTexts) -> Iterator[it.Item]:
    """Yield the items of one session as values, in order: events of a watch that follow each other as one."""
    events: list[pb.AgentEvent] = []
    watch_id, next_seq = "", 0
    for item in items:
        case = item.WhichOneof("item")
        if case == "event":
            event = item.event
            seq = event.seq
            if events and (seq != next_seq or item.watch_id != watch_id):
                yield _run_events(watch_id, events, texts)
                events = []
            if not events:
                watch_id = item.watch_id
            events.append(event)
            next_seq = seq + 1
            continue
        if events:
            yield _run_events(watch_id, events, texts)
            events = []
        value = _other(item, case)
        if value is not None:
            yield value
    if events:
        yield _run_events(watch_id, events, texts)


def _run_events(watch_id: str, events: Sequence[pb.AgentEvent], texts: EventTexts) -> it.RunEvents:
    return it.RunEvents(watch_id, events[0].seq, texts.json(events), is_terminal(events[-1]))


def _other(item: pb.AttachResponse.Item, case: str | None) -> it.Item | None:
    """Return an item that is no event; None for a kind that is newer than this bridge."""
    value: it.Item | None = None
    match case:
        case "session_ready":
            value = _ready(item.session_ready)
        case "session_expiring":
            value = it.SessionExpiring(item.session_expiring.expires_in_ms)
        case "session_probe":
            value = it.SessionProbe()
        case "thread_changed":
            value = _thread_changed(item.thread_changed)
        case "watch_ended":
            value = it.WatchEnded(item.watch_id, _failure(item.watch_ended))
        case "session_ended":
            value = it.SessionEnded(_failure(item.session_ended))
        case _:
            pass
    return value


def open_session(session_id: str, token: str) -> pb.AttachRequest:
    """Sign a socket in, or renew its token."""
    return pb.AttachRequest(open_session=pb.OpenSession(session_id=session_id, token=token))


def close_session(session_id: str) -> pb.AttachRequest:
    """End a session."""
    return pb.AttachRequest(close_session=pb.CloseSession(session_id=session_id))


def watch_run(session_id: str, watch_id: str, run_id: str, after_seq: int) -> pb.AttachRequest:
    """Start a watch."""
    watch = pb.WatchRunItem(session_id=session_id, watch_id=watch_id, run_id=run_id, after_seq=after_seq)
    return pb.AttachRequest(watch_run=watch)


def unwatch(session_id: str, watch_id: str) -> pb.AttachRequest:
    """End a watch."""
    return pb.AttachRequest(unwatch=pb.Unwatch(session_id=session_id, watch_id=watch_id))


def session_alive(session_id: str) -> pb.AttachRequest:
    """Answer a probe."""
    return pb.AttachRequest(session_alive=pb.SessionAlive(session_id=session_id))


def started_of(response: pb.StartRunResponse) -> it.Started:
    """Return the answer to StartRun as a value."""
    return it.Started(response.run_id, response.thread_id, response.user_message_id, response.already_existed)


def _ready(ready: pb.SessionReady) -> it.SessionReady:
    runs = tuple(
        ActiveRun(run.run_id, run.thread_id, run.last_seq, label(_RUN_STATUSES, run.status))
        for run in ready.active_runs
    )
    return it.SessionReady(ready.user_id, time_text(ready.expire_time), runs)


def _thread_changed(changed: pb.ThreadChanged) -> it.ThreadChanged:
    thread = changed.thread
    fields = {
        "thread_id": thread.thread_id,
        "title": thread.title,
        "create_time": time_text(thread.create_time) if thread.HasField("create_time") else None,
        "update_time": time_text(thread.update_time) if thread.HasField("update_time") else None,
    }
    return it.ThreadChanged(ThreadFrame(f"thread_{label(_CHANGES, changed.change)}", fields))


def _failure(ended: pb.WatchEnded | pb.SessionEnded) -> Failure | None:
    if ended.reason == pb.ERROR_REASON_UNSPECIFIED:
        return None
    reason = reason_of(ended.reason)
    message = ended.message or f"The service ended this: {reason}."
    return Failure(reason, message, ended.error_id, ended.retry_after_ms or None)
