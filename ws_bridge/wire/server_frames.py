"""What clients are told → JSON text. The events of runs are in `wire.events`."""

from ws_bridge.frames import ServerFrame, ThreadFrame
from ws_bridge.wire.values import to_json


def frame_json(frame: ServerFrame) -> bytes:
    """Return a frame as JSON text in UTF-8."""
    payload: object = {"thread": frame.thread} if isinstance(frame, ThreadFrame) else frame
    return to_json({"type": frame.type, "payload": payload})
