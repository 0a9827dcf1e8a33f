"""Every frame of the socket as a golden file: what the bridge sends, and what it makes of what clients send.

`pytest tests/contract --update-scenarios` rewrites the files; the diff is what a reviewer reads.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.completeness import enum_texts
from tests.support.storage import START
from ws_bridge import frames as fr
from ws_bridge import items as it
from ws_bridge.close_codes import Reason
from ws_bridge.wire.client_frames import MESSAGE_TYPES, NOT_YET, READERS, client_frame
from ws_bridge.wire.events import EventTexts
from ws_bridge.wire.items import items_of
from ws_bridge.wire.server_frames import frame_json
from ws_bridge.wire.values import datetime_text

GOLDEN: Final = Path(__file__).parents[1] / "ws_bridge" / "golden"
ID: Final = "01900000-0000-7000-8000-000000000001"
OTHER_ID: Final = "01900000-0000-7000-8000-0000000000aa"
NEW_ID: Final = "01900000-0000-7000-8000-0000000000ff"
TIME: Final = datetime_text(START)
MAX_BYTES: Final = 8_192

FAILURE: Final = fr.Failure(
    Reason.INVALID_ARGUMENT, "The request is not valid.", violations=(fr.Violation("content", "must be text"),)
)
LIMITED: Final = fr.Failure(Reason.RATE_LIMITED, "Too many messages.", "e-2", 1_200)
ESTABLISHED: Final = fr.ConnectionEstablished(
    connection_id=ID,
    user_id="ann",
    server_time=TIME,
    protocol="apex.v1",
    heartbeat_interval_ms=45_000,
    max_frame_bytes=MAX_BYTES,
    token_expires_at=TIME,
    active_runs=(fr.ActiveRun(ID, OTHER_ID, 7, "running"),),
)
SERVER_FRAMES: Final[Mapping[str, fr.ServerFrame]] = {
    "connection_established": ESTABLISHED,
    "ack": fr.Ack(ID, ID, OTHER_ID, NEW_ID, already_existed=False),
    "error": fr.error_frame(FAILURE, "e-1", request_type="user_message", message_id=ID),
    "error.of_a_stream": fr.error_frame(LIMITED, "e-1", request_type="resume", run_id=ID),
    "pong": fr.PongFrame("7"),
    "ping": fr.PingFrame(),
    "auth_expiring": fr.AuthExpiring(60_000),
    "server_status": fr.ServerStatus("degraded", "The service cannot be reached right now."),
    "server_draining": fr.ServerDraining(250),
}

MESSAGE: Final[Mapping[str, object]] = {
    "content": "Analyze my AI costs",
    "thread_id": OTHER_ID,
    "message_id": ID,
    "agent": "data",
    "context": {"page": 3, "tags": ["a", None, True, 0.5]},
    "settings": {
        "model": "offline",
        "temperature": 0,
        "max_output_tokens": 10,
        "timeout_ms": 60_000,
        "budget_usd": 0.5,
        "require_approval": True,
        "use_cache": False,
    },
    "references": [{"file_id": ID}, {"message_id": ID}, {"corpus_id": ID}],
    "conflict_policy": "interrupt",
}
CLIENT_FRAMES: Final[Mapping[str, Mapping[str, object]]] = {
    "user_message": MESSAGE,
    "user_message.short": {"text": "Hello"},
    "chat": {"text": "Hello", "message_id": ID},
    "agent_message": {"text": "Hello", "message_id": ID},
    "start_agent": {"content": "Hello", "message_id": ID, "agent": "data"},
    "stop_agent": {"run_id": ID},
    "stop_agent.by_message": {"message_id": ID},
    "resolve_approval": {"run_id": ID, "approval_id": OTHER_ID, "decision": "approve"},
    "resolve_approval.edit": {
        "run_id": ID,
        "approval_id": OTHER_ID,
        "decision": "edit",
        "comment": "Half of it.",
        "edited_args": {"limit_usd": 50, "models": ["gpt-4o-mini"]},
    },
    "resume": {"run_id": ID, "after_seq": 7},
    "authenticate": {"token": "header.payload.signature"},
    "ping": {"nonce": "7"},
    "pong": {},
}


def held_against(path: Path, found: object, request: pytest.FixtureRequest) -> None:
    """Compare with the golden file, order of keys included."""
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if request.config.getoption("--update-scenarios"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SERVER_FRAMES)
def test_a_frame_of_the_server_is_this_text(name: str, request: pytest.FixtureRequest) -> None:
    frame = json.loads(frame_json(SERVER_FRAMES[name]))
    assert frame["type"] == name.partition(".")[0]
    held_against(GOLDEN / "server_frames" / f"{name}.json", frame, request)


@pytest.mark.parametrize("change", enum_texts(pb.DESCRIPTOR)["ThreadChange"])
def test_a_change_of_a_thread_is_this_text(change: str, request: pytest.FixtureRequest) -> None:
    thread = pb.Thread(thread_id=OTHER_ID, title="Costs")
    if change != "deleted":
        thread.create_time.FromDatetime(START)
        thread.update_time.FromDatetime(START)
    changed = pb.ThreadChanged(change=pb.ThreadChange.Value(f"THREAD_CHANGE_{change.upper()}"), thread=thread)
    (item,) = items_of([pb.AttachResponse.Item(session_id=ID, thread_changed=changed)], EventTexts())
    assert isinstance(item, it.ThreadChanged)
    held_against(GOLDEN / "server_frames" / f"thread_{change}.json", json.loads(frame_json(item.frame)), request)


@pytest.mark.parametrize("name", CLIENT_FRAMES)
def test_a_frame_of_the_client_means_this(name: str, request: pytest.FixtureRequest) -> None:
    kind = name.partition(".")[0]
    sent = {"type": kind, "payload": CLIENT_FRAMES[name]}
    frame = client_frame(json.dumps(sent), MAX_BYTES, NEW_ID)
    assert not isinstance(frame, fr.Refused)
    held_against(GOLDEN / "client_frames" / f"{name}.json", {"frame": sent, "means": _shown(frame)}, request)


def _shown(frame: fr.ClientFrame) -> Mapping[str, object]:
    named = {name: getattr(frame, name) for name in getattr(frame, "__slots__", ())}
    shown = {
        name: _sorted(MessageToDict(value, preserving_proto_field_name=True)) if isinstance(value, Message) else value
        for name, value in named.items()
    }
    return {type(frame).__name__: shown}


def _sorted(value: Mapping[str, object]) -> object:
    """Return a JSON object with its keys in order: those of a Struct come in any."""
    return json.loads(json.dumps(value, sort_keys=True))


@pytest.mark.parametrize("kind", sorted(NOT_YET))
def test_a_frame_that_is_not_there_yet_says_so(kind: str) -> None:
    frame = client_frame(json.dumps({"type": kind, "payload": {}}), MAX_BYTES, NEW_ID)
    assert isinstance(frame, fr.Refused)
    assert (frame.failure.reason, frame.request_type) == (Reason.UNKNOWN_TYPE, kind)
    assert "not supported yet" in frame.failure.message


def test_no_type_is_both_taken_and_not_there_yet() -> None:
    assert (MESSAGE_TYPES | READERS.keys()) & NOT_YET == set()


def test_every_golden_file_is_of_a_frame() -> None:
    threads = {f"thread_{change}" for change in enum_texts(pb.DESCRIPTOR)["ThreadChange"]}
    for folder, names in (("server_frames", SERVER_FRAMES.keys() | threads), ("client_frames", CLIENT_FRAMES.keys())):
        assert {path.stem for path in (GOLDEN / folder).glob("*.json")} == names
