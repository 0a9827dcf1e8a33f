"""Frames of an `AttachResponse`, made without decoding what they hold.

The response is `repeated Item items = 1`; an item is `session_id = 1`, `watch_id = 2` and one of a oneof, where
`event = 3` is a message. On the wire a message and a byte string are the same: tag, length, bytes.
"""

from typing import Final

from generated.apex.agent.v1 import agent_pb2 as pb

LENGTH_DELIMITED: Final = 2
"""The wire type of strings, bytes and messages."""

LOW_BITS: Final = 0x7F
"""What one byte of a varint carries; the high bit says that more follow."""


_TABLE_BITS: Final = 14
_TABLE_SIZE: Final = 1 << _TABLE_BITS


def _digits(number: int) -> bytes:
    encoded = bytearray()
    while number > LOW_BITS:
        encoded.append(number & LOW_BITS | (LOW_BITS + 1))
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


# Two bytes at once: each event has half a dozen such numbers, and shifting bits is slow in Python.
_LAST: Final = tuple(_digits(number) for number in range(_TABLE_SIZE))
_MORE: Final = tuple(_digits(number | _TABLE_SIZE)[:2] for number in range(_TABLE_SIZE))


def varint(number: int) -> bytes:
    """Return a number, which must not be negative, as protobuf writes it."""
    if number < _TABLE_SIZE:
        return _LAST[number]
    return _MORE[number & _TABLE_SIZE - 1] + varint(number >> _TABLE_BITS)


def tag(field_number: int, wire_type: int = LENGTH_DELIMITED) -> bytes:
    """Return what stands before a field's value."""
    return varint(field_number << 3 | wire_type)


def bytes_field(field_tag: bytes, value: bytes) -> bytes:
    """Return a string, bytes or message as a field that has this `tag`."""
    return b"".join((field_tag, varint(len(value)), value))


_ITEM_TAG: Final = tag(pb.AttachResponse.ITEMS_FIELD_NUMBER)
_EVENT_TAG: Final = tag(pb.AttachResponse.Item.EVENT_FIELD_NUMBER)


def item_frame(item: pb.AttachResponse.Item) -> bytes:
    """Return an item as a part of a response."""
    data = item.SerializeToString()
    return _ITEM_TAG + varint(len(data)) + data


class EventFramer:
    """Makes the frames of one watch's events."""

    def __init__(self, session_id: str, watch_id: str) -> None:
        self._head = pb.AttachResponse.Item(session_id=session_id, watch_id=watch_id).SerializeToString() + _EVENT_TAG

    def frame(self, event: bytes) -> bytes:
        """Return a committed event as a part of a response."""
        size = varint(len(event))
        return b"".join((_ITEM_TAG, varint(len(self._head) + len(size) + len(event)), self._head, size, event))
