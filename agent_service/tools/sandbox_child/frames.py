"""The frames between the service and the child: a length of four bytes, big-endian, and as many bytes of UTF-8 JSON."""

import struct
from typing import Final, TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Message: TypeAlias = dict[str, Json]

LENGTH: Final = struct.Struct(">I")

MAX_FRAME_BYTES: Final = 8 * 1024 * 1024
"""Of a reply; a larger one is replaced by an error."""
