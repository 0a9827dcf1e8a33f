"""What the contract promises about itself."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from agent_service.api.status import CODES
from agent_service.engine.errors import ErrorReason
from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1 import agent_pb2_grpc

PROTO = Path(__file__).parents[2] / "protos" / "apex" / "agent" / "v1" / "agent.proto"
EVENT_CASES = [
    "agent_started",
    "agent_progress",
    "agent_thinking",
    "agent_handoff",
    "tool_executing",
    "tool_completed",
    "partial_result",
    "artifact_created",
    "approval_requested",
    "approval_resolved",
    "final_response",
    "agent_completed",
    "agent_error",
]


def test_the_generated_code_has_every_service_both_ways() -> None:
    for name in pb.DESCRIPTOR.services_by_name:
        for suffix in ("Stub", "Servicer"):
            assert hasattr(agent_pb2_grpc, f"{name}{suffix}")


def test_the_events_are_those_of_the_table_in_its_order() -> None:
    assert [field.name for field in pb.AgentEvent.DESCRIPTOR.oneofs_by_name["event"].fields] == EVENT_CASES


def test_only_the_three_streams_answer_with_events() -> None:
    answering = [
        method.name
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.output_type.name == "AgentEvent"
    ]
    assert answering == ["RunAgent", "WatchRun", "WatchThread"]


def test_the_reasons_are_the_same_in_contract_engine_and_table() -> None:
    names = {value.name.removeprefix("ERROR_REASON_") for value in pb.ErrorReason.DESCRIPTOR.values if value.number}
    assert names == {reason.value for reason in ErrorReason} == {reason.name for reason in CODES}


def test_every_fields_comment_begins_with_its_name() -> None:
    lines = PROTO.read_text(encoding="utf-8").splitlines()
    field = re.compile(r"^ {2,6}(?:repeated |optional |map<.*> )?(?:[\w.]+ )?(\w+) = \d+(?: \[.*)?;?$")
    wrong = []
    for number, line in enumerate(lines):
        match = field.match(line)
        if match is None or re.fullmatch(r"[A-Z0-9_]+", match[1]):
            continue
        above = number - 1
        while lines[above - 1].strip().startswith("//"):
            above -= 1
        if not lines[above].strip().startswith(f"// {match[1]} "):
            wrong.append(match[1])
    assert wrong == []


def messages(within: Descriptor | None = None) -> list[Descriptor]:
    found = list(within.nested_types if within else pb.DESCRIPTOR.message_types_by_name.values())
    return [*found, *(inner for message in found for inner in messages(message))]


@pytest.mark.parametrize("enum", list(pb.DESCRIPTOR.enum_types_by_name.values()), ids=lambda enum: enum.name)
def test_an_enum_begins_with_nothing_said(enum: EnumDescriptor) -> None:
    assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")


def test_units_and_types_of_fields() -> None:
    for message in messages():
        for field in message.fields:
            if field.name.endswith("_ms") or field.name.endswith("_bytes"):
                assert field.type == field.TYPE_INT64, field.full_name
            if field.name.endswith("_usd"):
                assert field.type == field.TYPE_DOUBLE, field.full_name
            if field.name.endswith("_time"):
                assert field.message_type is Timestamp.DESCRIPTOR, field.full_name
            if field.name in {"seq", "last_seq", "after_seq", "attempt"}:
                assert field.type == field.TYPE_UINT32, field.full_name
            if field.name.endswith("_id"):
                assert field.type == field.TYPE_STRING, field.full_name


def test_structs_are_only_where_the_shape_is_open() -> None:
    open_fields = {
        field.full_name.removeprefix("apex.agent.v1.")
        for message in messages()
        for field in message.fields
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct"
    }
    assert open_fields == {
        "ApprovalRequested.tool_args",
        "ResolveApprovalRequest.edited_args",
        "RunAgentRequest.context",
        "ToolCompleted.result",
        "ToolExecuting.tool_args",
    }
