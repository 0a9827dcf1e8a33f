"""The validation rules of the contract, read from its descriptor, each with a request on either side of it.

A rule of a kind that is not known here raises: whoever writes one says how both of its sides look.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    json_format,
    message_factory,
    timestamp_pb2,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.unknown_fields import UnknownFieldSet
from protovalidate import ViolationPb

from generated.apex.agent.v1 import agent_pb2 as pb

ID: Final = "0197f000-0000-7000-8000-0000000000ff"

VALID: Final[Mapping[str, Message]] = {
    "RunAgent": pb.RunAgentRequest(content="x"),
    "StartRun": pb.StartRunRequest(run=pb.RunAgentRequest(content="x")),
    "WatchRun": pb.WatchRunRequest(run_id=ID),
    "WatchThread": pb.WatchThreadRequest(thread_id=ID),
    "CancelRun": pb.CancelRunRequest(run_id=ID),
    "ResolveApproval": pb.ResolveApprovalRequest(run_id=ID, approval_id=ID, decision=pb.APPROVAL_CHOICE_APPROVE),
    "GetRun": pb.GetRunRequest(run_id=ID),
    "ListRuns": pb.ListRunsRequest(),
    "ListAgents": pb.ListAgentsRequest(),
    "CreateThread": pb.CreateThreadRequest(),
    "GetThread": pb.GetThreadRequest(thread_id=ID),
    "ListThreads": pb.ListThreadsRequest(),
    "UpdateThread": pb.UpdateThreadRequest(thread_id=ID),
    "DeleteThread": pb.DeleteThreadRequest(thread_id=ID),
    "ListMessages": pb.ListMessagesRequest(thread_id=ID),
    "UploadFile": pb.UploadFileRequest(metadata=pb.FileMetadata(name="x")),
    "ListFiles": pb.ListFilesRequest(),
    "GetFile": pb.GetFileRequest(file_id=ID),
    "DownloadFile": pb.DownloadFileRequest(file_id=ID),
    "DeleteFile": pb.DeleteFileRequest(file_id=ID),
    "Attach": pb.AttachRequest(close_session=pb.CloseSession(session_id=ID)),
    "RevokeTokens": pb.RevokeTokensRequest(jti="x"),
    "CreateDevToken": pb.CreateDevTokenRequest(),
}
"""A valid request of every rpc."""

PARTS: Final[Mapping[str, Message]] = {
    "apex.agent.v1.RunSettings": pb.RunSettings(),
    "apex.agent.v1.Reference": pb.Reference(file_id=ID),
    "apex.agent.v1.FileMetadata": pb.FileMetadata(name="x"),
    "apex.agent.v1.FileEnd": pb.FileEnd(),
    "apex.agent.v1.OpenSession": pb.OpenSession(session_id=ID, token="x"),
    "apex.agent.v1.CloseSession": pb.CloseSession(session_id=ID),
    "apex.agent.v1.WatchRunItem": pb.WatchRunItem(session_id=ID, watch_id="x", run_id=ID),
    "apex.agent.v1.WatchThreadItem": pb.WatchThreadItem(session_id=ID, watch_id="x", thread_id=ID),
    "apex.agent.v1.Unwatch": pb.Unwatch(session_id=ID, watch_id="x"),
    "apex.agent.v1.SessionAlive": pb.SessionAlive(session_id=ID),
    "apex.agent.v1.RunAgentRequest": pb.RunAgentRequest(content="x"),
}
"""A valid message of every kind that requests hold."""


def _struct(keys: int) -> Struct:
    struct = Struct()
    struct.update({str(number): number for number in range(keys)})
    return struct


EXPRESSIONS: Final[Mapping[str, tuple[object, object]]] = {
    "not_blank": ("x", " "),
    "agent_name": ("data", "No Agent"),
    "model_name": ("openai:x", "open ai"),
    "file_name": ("a.csv", "a/b"),
    "media_type": ("text/csv", "text"),
    "user_id": ("!" * 128, "!" * 129),
    "scope": ("~" * 1_000, "~" * 1_001),
    "context.max_keys": (_struct(64), _struct(65)),
    "edited_args.max_keys": (_struct(64), _struct(65)),
    "start_run.on_disconnect": (
        pb.RunAgentRequest(content="x", on_disconnect=pb.ON_DISCONNECT_CONTINUE),
        pb.RunAgentRequest(content="x", on_disconnect=pb.ON_DISCONNECT_CANCEL),
    ),
    "resolve_approval.edited_args": (
        pb.ResolveApprovalRequest(run_id=ID, approval_id=ID, decision=pb.APPROVAL_CHOICE_EDIT, edited_args=_struct(0)),
        pb.ResolveApprovalRequest(run_id=ID, approval_id=ID, decision=pb.APPROVAL_CHOICE_EDIT),
    ),
}
"""Values on either side of each rule that is an expression, by its id."""

DOUBLE_STEP: Final = 0.001
"""How far beyond its bound a double lies on the outside."""


@dataclass(frozen=True)
class Edge:
    """One rule at one place of one rpc's request, with a request on either side of it."""

    method: MethodDescriptor
    path: str
    rule: str
    inside: Message
    outside: Message

    def __str__(self) -> str:
        return f"{self.method.name}-{self.path}-{self.rule}"


Ruleset = Mapping[str, object]
"""Rules as protobuf's JSON shows them; 64-bit numbers are text there."""

OPTIONS_FIELD: Final = 1159
"""The number of the rules' extension in the options of fields, oneofs and messages."""


class Rules:
    """Reads rules: they stand in the options as an extension, which only the rules' own file can explain."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
            self._pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        self._pool.AddSerializedFile(ViolationPb.desc().file.proto.to_binary())

    def read(self, options: Message, kind: str) -> Ruleset:
        """Return the rules in a field's, oneof's or message's options; `kind` is `Field`, `Oneof` or `Message`."""
        rules = message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"buf.validate.{kind}Rules"))()
        unknown_fields = UnknownFieldSet(options)
        for index in range(len(unknown_fields)):
            unknown = unknown_fields[index]
            if unknown.field_number == OPTIONS_FIELD and isinstance(unknown.data, bytes):
                rules.MergeFromString(unknown.data)
        found: Ruleset = json_format.MessageToDict(rules, preserving_proto_field_name=True)
        return found


def _part(field: FieldDescriptor) -> Message | None:
    """Return a valid message of the field's type, if it is one of ours."""
    return PARTS.get(field.message_type.full_name) if field.message_type is not None else None


def _ruleset(value: object) -> Ruleset:
    assert isinstance(value, dict)
    return value


def _expressions(rules: Ruleset) -> Iterator[str]:
    """Yield the ids of the rules that are expressions."""
    listed = rules.get("cel", [])
    assert isinstance(listed, list)
    yield from (_text(_ruleset(expression)["id"]) for expression in listed)


def _text(value: object) -> str:
    assert isinstance(value, str)
    return value


def _number(value: object) -> int:
    assert isinstance(value, int | float | str)
    return int(value)


Place = Callable[[Message], Message]
"""Finds, in a request, the message that holds a field; makes it when it is not there."""


def edges() -> Iterator[Edge]:
    """Return every rule of every request."""
    rules = Rules()
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield from _edges_of(rules, method, method.input_type, "", lambda request: request)


def _edges_of(rules: Rules, method: MethodDescriptor, message: Descriptor, prefix: str, place: Place) -> Iterator[Edge]:
    for expression in _expressions(rules.read(message.GetOptions(), "Message")):
        inside, outside = EXPRESSIONS[expression]
        assert isinstance(inside, Message)
        assert isinstance(outside, Message)
        yield Edge(method, prefix.rstrip("."), expression, inside, outside)
    for oneof in message.oneofs:
        if rules.read(oneof.GetOptions(), "Oneof").get("required"):
            yield _edge(method, prefix + oneof.name, "required", place, lambda _: None, _clearing(oneof.name))
    for field in message.fields:
        path = prefix + field.name
        for rule, inside, outside in _sides(field, rules.read(field.GetOptions(), "Field")):
            shown = path + ("[0]" if rule.startswith("items.") else '["no"]' if rule == "map.keys.uuid" else "")
            yield _edge(method, shown, rule, place, _setting(field, inside), _setting(field, outside))
        if field.message_type is not None and _part(field) is not None:
            inner = f"{path}[0]." if field.is_repeated else f"{path}."
            yield from _edges_of(rules, method, field.message_type, inner, _inner(place, field))


def _edge(
    method: MethodDescriptor,
    path: str,
    rule: str,
    place: Place,
    inside: Callable[[Message], None],
    outside: Callable[[Message], None],
) -> Edge:
    requests = []
    for change in (inside, outside):
        request = copy.deepcopy(VALID[method.name])
        change(place(request))
        requests.append(request)
    return Edge(method, path, rule, *requests)


def _inner(place: Place, field: FieldDescriptor) -> Place:
    part = _part(field)
    assert part is not None

    def find(request: Message) -> Message:
        holder = place(request)
        if field.is_repeated:
            items = getattr(holder, field.name)
            if not items:
                items.add().CopyFrom(part)
            found = items[0]
        else:
            found = getattr(holder, field.name)
            if not holder.HasField(field.name):
                found.CopyFrom(part)
        assert isinstance(found, Message)
        return found

    return find


def _clearing(name: str) -> Callable[[Message], None]:
    return lambda message: message.ClearField(message.WhichOneof(name) or name)


def _setting(field: FieldDescriptor, value: object) -> Callable[[Message], None]:
    def put(message: Message) -> None:
        if isinstance(message, pb.ResolveApprovalRequest) and field.name == "edited_args":
            message.decision = pb.APPROVAL_CHOICE_EDIT
        message.ClearField(field.name)
        target = getattr(message, field.name)
        match value:
            case None:
                pass
            case dict():
                target.update(value)
            case list():
                target.extend(value)
            case Message():
                target.CopyFrom(value)
            case _:
                setattr(message, field.name, value)

    return put


def _sides(field: FieldDescriptor, rules: Ruleset) -> Iterator[tuple[str, object, object]]:
    """Yield each rule's name with a value inside and one outside."""
    for name, value in rules.items():
        match name:
            case "cel":
                for expression in _expressions(rules):
                    yield expression, *EXPRESSIONS[expression]
            case "required":
                yield "required", _part(field), None
            case "ignore":
                pass
            case "repeated":
                yield from _list_sides(field, _ruleset(value))
            case "map":
                yield from _map_sides(_ruleset(value))
            case kind:
                for rule, bound in _ruleset(value).items():
                    yield rule, *_scalar_sides(kind, rule, bound)


def _map_sides(rules: Ruleset) -> Iterator[tuple[str, object, object]]:
    assert rules.keys() == {"keys", "max_pairs"}
    assert rules["keys"] == {"string": {"uuid": True}}
    most = _number(rules["max_pairs"])
    yield "map.keys.uuid", {ID: 1}, {"no": 1}
    yield "map.max_pairs", _cursors(most), _cursors(most + 1)


def _cursors(count: int) -> dict[str, int]:
    return {f"0197f000-0000-7000-8000-{number:012x}": 1 for number in range(count)}


def _list_sides(field: FieldDescriptor, rules: Ruleset) -> Iterator[tuple[str, object, object]]:
    for rule, value in rules.items():
        match rule:
            case "max_items" if field.enum_type is not None:
                yield rule, list(range(1, _number(value) + 1)), [1] * (_number(value) + 1)
            case "max_items":
                yield rule, [_part(field)] * _number(value), [_part(field)] * (_number(value) + 1)
            case "unique":
                yield rule, [1, 2], [1, 1]
            case "items":
                for inner, bound in _ruleset(_ruleset(value)["enum"]).items():
                    inside, outside = _scalar_sides("enum", inner, bound)
                    yield f"items.{inner}", [inside], [outside]
            case _:
                raise AssertionError(f"no sides are known for repeated.{rule}")


SCALARS: Final[Mapping[tuple[str, str], tuple[object, object]]] = {
    ("string", "uuid"): (ID, "not-a-uuid"),
    ("string", "not_contains"): ("x", "x\0"),
    ("string", "min_len"): ("x", ""),
    ("bytes", "min_len"): (b"x", b""),
    ("enum", "defined_only"): (1, 99),
    ("enum", "not_in"): (1, 0),
}
"""Values on either side of the rules that have one form in the contract: not empty, not NUL, not UNSPECIFIED."""


def _long(length: int) -> str:
    """Return a text of this length that is a media type too."""
    return "x/".ljust(length, "x")


def _scalar_sides(kind: str, rule: str, bound: object) -> tuple[object, object]:
    if (kind, rule) in SCALARS:
        assert bound in (True, "\0", "1", [0]), bound
        return SCALARS[kind, rule]
    match kind, rule:
        case "string", "max_len" | "max_bytes":
            return _long(_number(bound)), _long(_number(bound) + 1)
        case "bytes", "max_len":
            return b"x" * _number(bound), b"x" * (_number(bound) + 1)
        case "double", "gte" | "lte":
            return _number(bound), _number(bound) + (DOUBLE_STEP if rule == "lte" else -DOUBLE_STEP)
        case _, "gte" | "lte":
            return _number(bound), _number(bound) + (1 if rule == "lte" else -1)
        case _:
            raise AssertionError(f"no sides are known for {kind}.{rule} = {bound!r}")
