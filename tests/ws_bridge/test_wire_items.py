"""The items of the Attach call as values: which events become one."""

from generated.apex.agent.v1 import agent_pb2 as pb
from ws_bridge import items as it
from ws_bridge.wire.events import EventTexts, event_json
from ws_bridge.wire.items import items_of


def event(seq: int, *, run_id: str = "run", end: bool = False) -> pb.AgentEvent:
    made = pb.AgentEvent(run_id=run_id, seq=seq)
    if end:
        made.agent_completed.SetInParent()
    else:
        made.partial_result.text = f"piece {seq}"
    return made


def item(watch_id: str, made: pb.AgentEvent) -> pb.AttachResponse.Item:
    return pb.AttachResponse.Item(session_id="s", watch_id=watch_id, event=made)


def values(*items: pb.AttachResponse.Item) -> list[it.Item]:
    return list(items_of(items, EventTexts()))


def test_events_that_follow_each_other_are_one_value() -> None:
    events = [event(4), event(5), event(6, end=True)]
    assert values(*(item("1", made) for made in events)) == [
        it.RunEvents("1", 4, [event_json(made) for made in events], terminal=True)
    ]


def test_another_watch_and_a_gap_begin_another_value() -> None:
    shown = values(item("1", event(1)), item("2", event(2, run_id="other")), item("1", event(2)), item("1", event(4)))
    assert [
        (value.watch_id, value.first_seq, len(value.texts)) for value in shown if isinstance(value, it.RunEvents)
    ] == [
        ("1", 1, 1),
        ("2", 2, 1),
        ("1", 2, 1),
        ("1", 4, 1),
    ]


def test_other_items_keep_their_place_and_unknown_ones_are_left_out() -> None:
    probe = pb.AttachResponse.Item(session_id="s", session_probe=pb.SessionProbe(timeout_ms=1))
    ended = pb.AttachResponse.Item(session_id="s", watch_id="1", watch_ended=pb.WatchEnded(last_seq=2))
    newer = pb.AttachResponse.Item(session_id="s")
    shown = values(item("1", event(1)), probe, item("1", event(2)), newer, item("1", event(3)), ended)
    assert [type(value) for value in shown] == [
        it.RunEvents,
        it.SessionProbe,
        it.RunEvents,
        it.RunEvents,
        it.WatchEnded,
    ]
