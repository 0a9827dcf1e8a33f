"""Every value of every enum has one text, the contract's, wherever it is written or read."""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, get_args

import httpx
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor

from agent_service.engine import events
from agent_service.engine.broadcast import ThreadChangeKind
from agent_service.engine.errors import ErrorReason
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.records import MessageRole, RunStatus, ThreadConflict
from tests.support.bridge_server import running_bridge
from tests.support.completeness import enum_texts, messages
from tests.support.rules import ID
from tests.support.scripted_service import ScriptedService
from ws_bridge import frames as fr
from ws_bridge.close_codes import Reason
from ws_bridge.rest_models import RunStatusName
from ws_bridge.wire.client_frames import client_frame
from ws_bridge.wire.events import event_json
from ws_bridge.wire.values import enum_labels, message_object

TEXTS: Final = enum_texts(pb.DESCRIPTOR)
FIELDS: Final = [
    field for message in messages(pb.DESCRIPTOR) for field in message.fields if field.enum_type is not None
]
EVENT_CASES: Final = {case.message_type: case.name for case in pb.AgentEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
TWINS: Final[dict[str, Sequence[type[StrEnum]]]] = {
    "ErrorReason": [ErrorReason, Reason],
    "ConflictPolicy": [ThreadConflict],
    "RunStatus": [RunStatus],
    "ProgressStage": [events.ProgressStage],
    "ToolEffect": [events.Effect],
    "ToolStatus": [events.ToolStatus],
    "ApprovalDecision": [events.ApprovalDecision],
    "AnswerSource": [events.AnswerSource],
    "CompletionStatus": [events.CompletionStatus],
    "MessageRole": [MessageRole],
    "ThreadChange": [ThreadChangeKind],
}
"""The enums of the code that stand for one of the contract."""

WITHOUT_TWIN: Final = {"OnDisconnect", "ApprovalChoice"}
"""Used as they are (a stream of RunAgent alone knows it), or not there yet."""


@pytest.mark.parametrize("name", TEXTS)
def test_the_bridge_gives_every_value_its_text(name: str) -> None:
    enum: Any = getattr(pb, name).DESCRIPTOR
    labels = enum_labels(enum)
    assert [labels[value.number] for value in enum.values if value.number] == TEXTS[name]


def test_the_texts_are_those_of_the_contract() -> None:
    assert TEXTS["ToolStatus"] == ["success", "error", "timeout", "denied", "cancelled", "outcome_unknown"]
    assert TEXTS["OnDisconnect"] == ["continue", "cancel"]
    assert TEXTS["ErrorReason"][:2] == ["UNAUTHENTICATED", "TOKEN_EXPIRED"]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.full_name.removeprefix("apex.agent.v1."))
def test_a_field_shows_the_text_of_its_value(field: FieldDescriptor) -> None:
    assert field.enum_type is not None
    assert field.containing_type is not None
    shown: list[object] = []
    for value in (value for value in field.enum_type.values if value.number):
        message = message_factory.GetMessageClass(field.containing_type)()
        if field.is_repeated:
            getattr(message, field.name).append(value.number)
        else:
            setattr(message, field.name, value.number)
        found = message_object(message)[field.name]
        shown.append(found[0] if isinstance(found, list) else found)
        case = EVENT_CASES.get(field.containing_type)
        if case is not None:
            event = pb.AgentEvent()
            getattr(event, case).MergeFrom(message)
            payload = json.loads(event_json(event))["payload"]
            assert isinstance(payload, dict)
            assert payload[field.name] == found
    assert shown == TEXTS[field.enum_type.name]


def test_the_code_has_the_same_texts() -> None:
    assert TWINS.keys() | WITHOUT_TWIN == TEXTS.keys()
    for name, twins in TWINS.items():
        for twin in twins:
            assert [member.value for member in twin] == TEXTS[name], twin


@pytest.mark.parametrize("text", TEXTS["ConflictPolicy"])
def test_a_message_names_its_policy_by_the_text(text: str) -> None:
    sent = {"type": "user_message", "payload": {"content": "Hi", "conflict_policy": text}}
    frame = client_frame(json.dumps(sent), 8_192, ID)
    assert isinstance(frame, fr.UserMessage)
    assert enum_labels(pb.ConflictPolicy.DESCRIPTOR)[frame.request.conflict_policy] == text


@pytest.mark.parametrize("text", ["unspecified", "ENQUEUE", "CONFLICT_POLICY_ENQUEUE", "1", ""])
def test_no_other_text_is_a_policy(text: str) -> None:
    sent = {"type": "user_message", "payload": {"content": "Hi", "conflict_policy": text}}
    frame = client_frame(json.dumps(sent), 8_192, ID)
    assert isinstance(frame, fr.Refused)
    assert [violation.field for violation in frame.failure.violations] == ["conflict_policy"]


async def test_runs_are_filtered_by_the_texts_of_their_states() -> None:
    assert list(get_args(RunStatusName)) == TEXTS["RunStatus"]
    async with ScriptedService() as service, running_bridge(service.target) as bridge:
        headers = {"Authorization": "Bearer token-alice"}
        async with httpx.AsyncClient(base_url=bridge.url, headers=headers) as client:
            answer = await client.get("/api/v1/runs", params={"statuses": TEXTS["RunStatus"]})
            assert answer.is_success, answer.text
            refused = await client.get("/api/v1/runs", params={"statuses": "RUNNING"})
            assert refused.status_code == httpx.codes.BAD_REQUEST
    (request,) = [request for name, request in service.calls if name == "ListRuns"]
    assert isinstance(request, pb.ListRunsRequest)
    labels = enum_labels(pb.RunStatus.DESCRIPTOR)
    assert [labels[status] for status in request.statuses] == TEXTS["RunStatus"]
