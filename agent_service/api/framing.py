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


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    encoded = bytearray()
    while number > LOW_BITS:
        encoded.append(number & LOW_BITS | (LOW_BITS + 1))
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _tag(field_number: int) -> bytes:
    return varint(field_number << 3 | LENGTH_DELIMITED)


_ITEM_TAG: Final = _tag(pb.AttachResponse.ITEMS_FIELD_NUMBER)
_EVENT_TAG: Final = _tag(pb.AttachResponse.Item.EVENT_FIELD_NUMBER)


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
        body = self._head + varint(len(event))
        return b"".join((_ITEM_TAG, varint(len(body) + len(event)), body, event))
