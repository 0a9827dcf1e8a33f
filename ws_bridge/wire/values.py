"""The contract's JSON rules for single values, and for any message by its descriptor.

Names are snake_case, enums the value's name without its prefix in lower case (error reasons in upper case), integers
numbers, times RFC 3339 with 6 digits and `Z`; scalars and lists are always there, unset messages are null.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol, TypeAlias

import msgspec
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from generated.apex.agent.v1 import agent_pb2 as pb

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]


class _EnumValue(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def number(self) -> int: ...


class _Enum(Protocol):
    """What is read of an enum's descriptor, whichever implementation of protobuf it comes from."""

    @property
    def full_name(self) -> str: ...
    @property
    def values(self) -> Sequence[_EnumValue]: ...


MAX_EXACT_INTEGER = 2**53 - 1
"""The largest integer that a JSON number carries exactly everywhere."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
_UNSPECIFIED = "UNSPECIFIED"
_ENCODER = msgspec.json.Encoder()


def to_json(value: object) -> bytes:
    """Return a JSON value, or dataclasses of them, as JSON text in UTF-8."""
    return _ENCODER.encode(value)


def time_text(time: Timestamp) -> str:
    """Return a time as RFC 3339 with microseconds."""
    return f"{_seconds_text(time.seconds)}.{time.nanos // 1000:06d}Z"


@lru_cache(maxsize=64)
def _seconds_text(seconds: int) -> str:
    """Return a time without its fraction. Remembered: the events of one moment share it."""
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()


def datetime_text(time: datetime) -> str:
    """Return an aware time as RFC 3339 with microseconds."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def enum_labels(enum: _Enum) -> dict[int, str]:
    """Return the JSON name of each value of an enum."""
    prefix = enum.values[0].name.removesuffix(_UNSPECIFIED)
    names = {value.number: value.name.removeprefix(prefix) for value in enum.values}
    if enum.full_name == pb.ErrorReason.DESCRIPTOR.full_name:
        return names
    return {number: name.lower() for number, name in names.items()}


def label(labels: Mapping[int, str], number: int) -> str:
    """Return a value's JSON name; a number that is not known yet is its digits."""
    return labels.get(number) or str(number)


def reason_of(number: int) -> str:
    """Return the name of an error reason, `UNSPECIFIED` for none."""
    return label(_REASONS, number)


def struct_object(struct: Struct) -> JsonObject:
    """Return a Struct as a JSON object, keys sorted (a Struct has no order, and the text must always be the same)."""
    fields = struct.fields
    return {key: struct_value(fields[key]) for key in sorted(fields)}


def struct_value(value: Value) -> JsonValue:
    """Return a Struct's value as JSON; integral doubles are integers."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return _number(value.number_value)
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return struct_object(value.struct_value)
        case "list_value":
            return [struct_value(item) for item in value.list_value.values]
        case _:
            return None


def struct_of(values: Mapping[str, object]) -> Struct:
    """Return a JSON object as a Struct.

    Raises:
        OverflowError: an integer is too large for a double.
        ValueError: a text is not valid Unicode.
    """
    struct = Struct()
    for key, value in values.items():
        _set_value(struct.fields[key], value)
    return struct


def _set_value(target: Value, value: object) -> None:
    match value:
        case bool():
            target.bool_value = value
        case int() | float():
            target.number_value = float(value)
        case str():
            target.string_value = value
        case dict():
            target.struct_value.CopyFrom(struct_of(value))
        case list():
            target.list_value.SetInParent()
            for item in value:
                _set_value(target.list_value.values.add(), item)
        case _:
            target.null_value = NULL_VALUE


def message_object(message: Message) -> JsonObject:
    """Return any message as a JSON object, by its descriptor. An unset oneof is left out, like its set one's rivals.

    Slow (tens of microseconds): for answers to single requests, and for what the fast mapping does not know.
    """
    result: JsonObject = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            result[field.name] = [_field_value(field.enum_type, item) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            result[field.name] = _field_value(field.enum_type, value)
        elif field.containing_oneof is None or field.message_type is None:
            result[field.name] = None
    return result


def _field_value(enum: _Enum | None, value: object) -> JsonValue:
    match value:
        case Timestamp():
            return time_text(value)
        case Struct():
            return struct_object(value)
        case Message():
            return message_object(value)
        case int() if enum is not None:
            return label(enum_labels(enum), value)
        case bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")


def _number(value: float) -> int | float | None:
    if value.is_integer() and abs(value) <= MAX_EXACT_INTEGER:
        return int(value)
    return value if value - value == 0 else None  # JSON has neither NaN nor infinity


_REASONS: Mapping[int, str] = enum_labels(pb.ErrorReason.DESCRIPTOR)
