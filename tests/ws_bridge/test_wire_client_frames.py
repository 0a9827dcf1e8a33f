"""Whatever a client sends, a frame comes out: handled, or refused with the reason and the field."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.random_events import JSON
from ws_bridge import frames as fr
from ws_bridge.items import SessionReady
from ws_bridge.limits import SessionLimits
from ws_bridge.session import Session
from ws_bridge.wire.client_frames import MAX_JSON_DEPTH, client_frame

MAX_BYTES = 8192
NEW_ID = "00000000-0000-7000-8000-000000000001"
ID = "11111111-1111-4111-8111-111111111111"

TYPES = st.sampled_from(
    [
        *("user_message", "chat", "agent_message", "start_agent", "stop_agent", "resume", "authenticate", "ping"),
        *("pong", "watch_thread", "unwatch_thread", "resolve_approval", "chunk", "x"),
    ]
)
FIELDS = st.sampled_from(
    [
        *("content", "text", "thread_id", "message_id", "agent", "context", "settings", "references"),
        *("conflict_policy", "run_id", "after_seq", "token", "nonce", "temperature", "file_id"),
    ]
)
NUMBERS = st.integers() | st.floats(allow_nan=False) | st.sampled_from([2**32, -1, 10**400, 1e308])
PAYLOADS = st.recursive(
    JSON | NUMBERS | st.just(ID),
    lambda inner: st.dictionaries(FIELDS, inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=12,
)


def decoded(kind: str, **payload: object) -> fr.ClientFrame:
    return client_frame(json.dumps({"type": kind, "payload": payload}), MAX_BYTES, NEW_ID)


def refused(frame: fr.ClientFrame) -> fr.Failure:
    assert isinstance(frame, fr.Refused)
    return frame.failure


def request_of(frame: fr.ClientFrame) -> dict[str, Any]:
    assert isinstance(frame, fr.UserMessage)
    return MessageToDict(frame.request, preserving_proto_field_name=True)


@pytest.mark.parametrize("kind", ["user_message", "chat", "agent_message", "start_agent"])
def test_a_message_becomes_a_request(kind: str) -> None:
    frame = decoded(
        kind,
        content="Analyze my AI costs",
        thread_id=ID,
        message_id=ID,
        agent="data",
        context={"page": 3, "tags": ["a", None, True, {"b": 0.5}]},
        settings={"model": "offline", "temperature": 0, "max_output_tokens": 10, "use_cache": False},
        references=[{"file_id": ID}, {"message_id": ID}, {"corpus_id": ID}],
        conflict_policy="interrupt",
    )

    assert request_of(frame) == {
        "thread_id": ID,
        "content": "Analyze my AI costs",
        "client_message_id": ID,
        "agent": "data",
        "context": {"page": 3.0, "tags": ["a", None, True, {"b": 0.5}]},
        "settings": {"model": "offline", "temperature": 0.0, "max_output_tokens": 10, "use_cache": False},
        "references": [{"file_id": ID}, {"message_id": ID}, {"corpus_id": ID}],
        "conflict_policy": "CONFLICT_POLICY_INTERRUPT",
    }


def test_a_message_without_an_id_gets_one() -> None:
    assert request_of(decoded("chat", text="Hi")) == {"content": "Hi", "client_message_id": NEW_ID}


def test_null_is_the_same_as_left_out() -> None:
    frame = decoded("chat", text="Hi", content=None, thread_id=None, message_id=None, settings=None, context=None)
    assert request_of(frame) == {"content": "Hi", "client_message_id": NEW_ID}


def test_unknown_fields_are_ignored() -> None:
    text = json.dumps({"type": "ping", "payload": {"nonce": 1, "newer": []}, "also": {}})
    assert client_frame(text, MAX_BYTES, NEW_ID) == fr.Ping(1)


@pytest.mark.parametrize(
    ("payload", "reason", "field"),
    [
        ({"content": ""}, "EMPTY_MESSAGE", "content"),
        ({"content": " \n\u2003"}, "EMPTY_MESSAGE", "content"),
        ({}, "EMPTY_MESSAGE", "content"),
        ({"content": "a\0b"}, "INVALID_ARGUMENT", "content"),
        ({"content": 5}, "INVALID_ARGUMENT", "content"),
        ({"content": "Hi", "thread_id": "x"}, "INVALID_ARGUMENT", "thread_id"),
        ({"content": "Hi", "message_id": "x"}, "INVALID_ARGUMENT", "message_id"),
        ({"content": "Hi", "agent": "Data!"}, "INVALID_ARGUMENT", "agent"),
        ({"content": "Hi", "conflict_policy": "ENQUEUE"}, "INVALID_ARGUMENT", "conflict_policy"),
        ({"content": "Hi", "context": []}, "INVALID_ARGUMENT", "context"),
        ({"content": "Hi", "context": {"n": 10**400}}, "INVALID_ARGUMENT", "context"),
        ({"content": "Hi", "context": {str(n): n for n in range(65)}}, "INVALID_ARGUMENT", "context"),
        ({"content": "Hi", "settings": {"temperature": 2.01}}, "INVALID_ARGUMENT", "settings.temperature"),
        ({"content": "Hi", "settings": {"max_output_tokens": 2**32}}, "INVALID_ARGUMENT", "settings.max_output_tokens"),
        ({"content": "Hi", "settings": {"timeout_ms": 999}}, "INVALID_ARGUMENT", "settings.timeout_ms"),
        ({"content": "Hi", "settings": {"timeout_ms": 2**63}}, "INVALID_ARGUMENT", "settings.timeout_ms"),
        (
            {"content": "Hi", "references": [{"file_id": ID}, {"file_id": "x"}]},
            "INVALID_ARGUMENT",
            "references[1].file_id",
        ),
        ({"content": "Hi", "references": [{}]}, "INVALID_ARGUMENT", "references[0].reference"),
        (
            {"content": "Hi", "references": [{"file_id": ID, "corpus_id": ID}]},
            "INVALID_ARGUMENT",
            "references[0].reference",
        ),
        ({"content": "Hi", "references": [{"file_id": ID}] * 21}, "INVALID_ARGUMENT", "references"),
    ],
)
def test_an_invalid_message_names_its_field(payload: dict[str, Any], reason: str, field: str) -> None:
    failure = refused(decoded("user_message", **payload))

    assert (failure.reason, failure.violations[0].field) == (reason, field)


@pytest.mark.parametrize("kind", ["watch_thread", "unwatch_thread", "chunk", "fly", ""])
def test_what_is_not_known_is_said(kind: str) -> None:
    assert refused(decoded(kind)).reason == "UNKNOWN_TYPE"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "{",
        "[]",
        "null",
        "1",
        '"ping"',
        "{}",
        '{"type":1}',
        '{"type":"ping"} x',
        '{"type":"\\ud800"}',
        "[" * 8000,
    ],
)
def test_what_is_no_frame_is_malformed(text: str) -> None:
    assert refused(client_frame(text, MAX_BYTES, NEW_ID)).reason == "MALFORMED_JSON"


@pytest.mark.parametrize("ending", ["x", "é", "☂"])
def test_the_size_counts_bytes(ending: str) -> None:
    shell = json.dumps({"type": "chat", "payload": {"content": ending}}, ensure_ascii=False)
    fill = MAX_BYTES - len(shell.encode())
    text = shell.replace(ending, "x" * fill + ending)

    assert isinstance(client_frame(text, MAX_BYTES, NEW_ID), fr.UserMessage)
    too_large = client_frame(text.replace(ending, f"x{ending}"), MAX_BYTES, NEW_ID)
    assert refused(too_large).reason == "MESSAGE_TOO_LARGE"
    assert isinstance(too_large, fr.Refused)
    assert too_large.request_type == "chat"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_the_depth_is_bounded_and_what_passes_can_be_sent_on(opening: str, closing: str) -> None:
    def nested(depth: int) -> fr.ClientFrame:
        inner = opening * (depth - 3) + "1" + closing * (depth - 3)
        text = '{"type":"chat","payload":{"content":"[{[{","context":{"a":' + inner + "}}}"
        return client_frame(text, MAX_BYTES, NEW_ID)

    deepest = nested(MAX_JSON_DEPTH)
    assert isinstance(deepest, fr.UserMessage)
    start = pb.StartRunRequest(run=deepest.request)
    assert pb.StartRunRequest.FromString(start.SerializeToString()) == start
    assert refused(nested(MAX_JSON_DEPTH + 1)).reason == "MALFORMED_JSON"


@pytest.mark.parametrize(
    ("payload", "expected"), [({"run_id": ID}, {"run_id": ID}), ({"message_id": ID}, {"client_message_id": ID})]
)
def test_a_stop_names_a_run_or_a_message(payload: dict[str, str], expected: dict[str, str]) -> None:
    frame = decoded("stop_agent", **payload)

    assert isinstance(frame, fr.StopAgent)
    assert MessageToDict(frame.request, preserving_proto_field_name=True) == expected


@pytest.mark.parametrize("payload", [{}, {"run_id": "x"}, {"message_id": "x"}, {"run_id": 1}])
def test_a_stop_of_nothing_is_refused(payload: dict[str, object]) -> None:
    assert refused(decoded("stop_agent", **payload)).reason == "INVALID_ARGUMENT"


@pytest.mark.parametrize("after_seq", [-1, 2**32, 1.5, "1", None])
def test_a_cursor_is_a_whole_number(after_seq: object) -> None:
    assert refused(decoded("resume", run_id=ID, after_seq=after_seq)).violations[0].field == "after_seq"


def test_a_resume_starts_after_its_cursor() -> None:
    assert decoded("resume", run_id=ID, after_seq=2**32 - 1) == fr.Resume(ID, 2**32 - 1)
    assert decoded("resume", run_id=ID) == fr.Resume(ID, 0)


def test_a_refusal_names_its_request() -> None:
    frame = decoded("user_message", content="", message_id=ID)
    assert isinstance(frame, fr.Refused)
    assert (frame.request_type, frame.message_id, frame.run_id) == ("user_message", ID, None)


@given(TYPES, PAYLOADS)
def test_any_json_is_a_frame_or_a_refusal(kind: str, payload: object) -> None:
    assert_harmless(json.dumps({"type": kind, "payload": payload}))


@given(PAYLOADS)
def test_any_value_is_a_frame_or_a_refusal(value: object) -> None:
    assert_harmless(json.dumps(value))


@given(st.text(st.characters(codec="utf-8")) | st.text('{}[]":,\\u0dpingtye1e', max_size=60))
def test_any_text_is_a_frame_or_a_refusal(text: str) -> None:
    assert_harmless(text)


def assert_harmless(text: str) -> None:
    """A session takes it, and answers with effects."""
    limits = SessionLimits(10, 10, 10, 10, 10, 10, MAX_BYTES, 10)
    session = Session("c", limits, 0, attached=True)
    session.on_token(0, "token")
    session.on_ready(0, SessionReady("u", "later", ()), "now", "e")
    frame = client_frame(text, MAX_BYTES, NEW_ID)
    effects = session.on_frame(0, frame, "error")
    assert effects or isinstance(frame, fr.Pong)
