"""Values of the wire and of the domain: enums, times, JSON. What the domain wrote, it reads back equal."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar

from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from agent_service.engine.events import JsonObject, JsonValue

MAX_EXACT_INTEGER: Final = 2**53 - 1
"""A Struct holds every number as a double: integers beyond this would come back changed, so they travel as text."""

DomainT = TypeVar("DomainT", bound=StrEnum)
WireT = TypeVar("WireT", bound=int)
WireT_co = TypeVar("WireT_co", bound=int, covariant=True)


class WireEnum(Protocol[WireT_co]):
    """What generated enums offer."""

    def keys(self) -> list[str]:
        """Return the names, in order."""
        ...

    def Value(self, name: str) -> WireT_co:
        """Return the number of a name."""
        ...


class EnumMap(Generic[DomainT, WireT]):
    """Maps a domain enum to a wire enum by name, prefix aside. Refuses, when it is made, a name without a twin."""

    def __init__(self, domain: type[DomainT], wire: WireEnum[WireT], prefix: str) -> None:
        self._to_wire: Mapping[DomainT, WireT] = {member: wire.Value(f"{prefix}_{member.name}") for member in domain}
        self._to_domain: Mapping[int, DomainT] = {int(number): member for member, number in self._to_wire.items()}
        unknown = set(wire.keys()) - {f"{prefix}_{member.name}" for member in domain} - {f"{prefix}_UNSPECIFIED"}
        if unknown:
            raise TypeError(f"{domain.__name__} lacks {sorted(unknown)} of the contract")

    def to_wire(self, member: DomainT) -> WireT:
        """Return the wire's number."""
        return self._to_wire[member]

    def to_domain(self, number: int) -> DomainT:
        """Return the domain's member. Raises `KeyError` for UNSPECIFIED and for numbers that are not known."""
        return self._to_domain[number]

    def to_domain_or(self, number: int, default: DomainT) -> DomainT:
        """Return the domain's member, or the default for UNSPECIFIED."""
        return self._to_domain[number] if number else default


def to_timestamp(time: datetime) -> Timestamp:
    """Return a UTC time with microseconds."""
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def to_datetime(timestamp: Timestamp) -> datetime:
    """Return an aware UTC time."""
    return timestamp.ToDatetime(tzinfo=UTC)


def to_struct(value: JsonObject) -> struct_pb2.Struct:
    """Return a JSON object as a Struct. Numbers that a double cannot hold exactly, NaN and infinities become text."""
    struct = struct_pb2.Struct()
    fill_struct(struct, value)
    return struct


def fill_struct(struct: struct_pb2.Struct, value: JsonObject) -> None:
    """Add a JSON object's fields to a Struct; present, if empty, all the same."""
    struct.SetInParent()
    for key, item in value.items():
        _fill(struct.fields[key], item)


def _fill(target: struct_pb2.Value, value: JsonValue) -> None:
    match value:
        case None:
            target.null_value = struct_pb2.NULL_VALUE
        case bool():
            target.bool_value = value
        case str():
            target.string_value = value
        case int():
            _fill_integer(target, value)
        case float():
            _fill_double(target, value)
        case Mapping():
            fill_struct(target.struct_value, value)
        case Sequence():
            target.list_value.SetInParent()
            for item in value:
                _fill(target.list_value.values.add(), item)


def _fill_integer(target: struct_pb2.Value, value: int) -> None:
    if abs(value) <= MAX_EXACT_INTEGER:
        target.number_value = value
    else:
        target.string_value = str(value)


def _fill_double(target: struct_pb2.Value, value: float) -> None:
    if math.isfinite(value):
        target.number_value = value or 0.0  # minus zero reads back as zero, so it is written as zero
    else:
        target.string_value = str(value)


def from_struct(struct: struct_pb2.Struct) -> dict[str, JsonValue]:
    """Return a Struct as a JSON object; whole numbers as integers."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: struct_pb2.Value) -> JsonValue:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "string_value":
            return value.string_value
        case "number_value":
            return _plain_number(value.number_value)
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case _:
            return None


def _plain_number(number: float) -> int | float | str:
    if not math.isfinite(number):
        return str(number)
    return int(number) if number.is_integer() and abs(number) <= MAX_EXACT_INTEGER else number
