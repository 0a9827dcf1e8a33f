"""The contract as a newer service would have it: everything that may be added is added, and nothing else changes.

Every message has a field more, every enum a value, and there is one more kind of event, of request and of item of the
Attach call, and of rpc. It is made in a pool of its own, beside the contract of this version.
"""

from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

from generated.apex.agent.v1 import agent_pb2 as pb

NEW_FIELD: Final = "newer_note"
NEW_FIELD_NUMBER: Final = 1_000
NEW_EVENT: Final = "future_event"
NEW_CASES: Final = {"AgentEvent": NEW_EVENT, "Item": "future_item", "AttachRequest": "future_request"}
"""Message → the case that its oneof has more."""
NEW_CASE_NUMBER: Final = 1_001
NEW_VALUE: Final = "FUTURE"
NEW_VALUE_NUMBER: Final = 99
NEW_RPC: Final = "FutureCall"
_NEW_MESSAGE: Final = "Future"


class NewerContract:
    """The newer contract's file, and its messages."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for module in (struct_pb2, timestamp_pb2):
            self._pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        proto = _newer_file()
        self._pool.AddSerializedFile(proto.SerializeToString())
        self.file: FileDescriptor = self._pool.FindFileByName(proto.name)

    def new(self, name: str, data: bytes = b"") -> Message:
        """Return a message of the newer contract, read from `data`. `name` is without the package."""
        kind = self._pool.FindMessageTypeByName(f"{self.file.package}.{name}")
        message = message_factory.GetMessageClass(kind)()
        message.ParseFromString(data)
        return message

    def event(self, event: pb.AgentEvent) -> bytes:
        """Return an event as a newer service would encode it: with the new field wherever there can be one."""
        newer = self.new("AgentEvent", event.SerializeToString())
        _annotate(newer)
        return newer.SerializeToString(deterministic=True)

    def future_event(self, envelope: pb.AgentEvent, words: str = "Of the future.") -> bytes:
        """Return an event of the new kind, in the envelope of another."""
        newer = self.new("AgentEvent", envelope.SerializeToString())
        newer.ClearField(newer.WhichOneof("event") or "event")
        getattr(newer, NEW_EVENT).message = words
        _annotate(newer)
        return newer.SerializeToString(deterministic=True)


def _newer_file() -> descriptor_pb2.FileDescriptorProto:
    proto = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(proto)
    for message in proto.message_type:
        _extend(message, proto.package)
    for enum in proto.enum_type:
        prefix = enum.value[0].name.removesuffix("UNSPECIFIED")
        enum.value.add(name=f"{prefix}{NEW_VALUE}", number=NEW_VALUE_NUMBER)
    added = proto.message_type.add(name=_NEW_MESSAGE)
    added.field.add(name="message", number=1, type=_text().type, label=_text().label)
    service = proto.service[0]
    service.method.add(name=NEW_RPC, input_type=service.method[0].input_type, output_type=service.method[0].output_type)
    return proto


def _extend(message: descriptor_pb2.DescriptorProto, package: str) -> None:
    if message.options.map_entry:
        return
    for nested in message.nested_type:
        _extend(nested, package)
    if message.name in NEW_CASES:
        field = message.field.add(name=NEW_CASES[message.name], number=NEW_CASE_NUMBER, oneof_index=0)
        field.type, field.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{_NEW_MESSAGE}"
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    message.field.add(name=NEW_FIELD, number=NEW_FIELD_NUMBER, type=_text().type, label=_text().label)


def _text() -> descriptor_pb2.FieldDescriptorProto:
    return descriptor_pb2.FieldDescriptorProto(
        type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )


def _annotate(message: Message) -> None:
    """Set the new field of a message and of every message in it."""
    for field, value in message.ListFields():
        if field.message_type is not None and NEW_FIELD in field.message_type.fields_by_name:
            for inner in value if field.is_repeated else (value,):
                _annotate(inner)
    if NEW_FIELD in message.DESCRIPTOR.fields_by_name:
        setattr(message, NEW_FIELD, "newer")


def set_field(message: Message, path: str, value: object) -> None:
    """Set a field of a message without generated code; `path` leads to it with dots."""
    *outer, name = path.split(".")
    for step in outer:
        message = getattr(message, step)
    setattr(message, name, value)
