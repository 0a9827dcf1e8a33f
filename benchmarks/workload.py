"""The run that everything is measured with: what a client asks for, and the pieces that an agent then says.

The message of a run is its script as JSON, so that the client alone decides what happens. The floor and the scripted
agent take their pieces from the same generator: they differ in what happens to an event, not in how it comes about.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import msgspec

PIECE_CHARACTERS: Final = 20
"""Of one piece of text: when it was emitted and how late that was, in hexadecimal digits."""

_TIME_DIGITS: Final = 14
_MAX_LATE_US: Final = 16**6 - 1
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Script:
    """What a run consists of: thinking and a pair of tool events `tools` times, then pieces `pause_ms` apart."""

    tools: int = 3
    pieces: int = 200
    pause_ms: int = 0

    @property
    def events(self) -> int:
        """How many events that is, the first and the last one of every run included."""
        return 2 + 3 * self.tools + self.pieces

    @property
    def content(self) -> str:
        """The message that asks for it."""
        return msgspec.json.encode(self).decode()


def script_of(content: str) -> Script:
    """Return the script that a message asks for. Raises `msgspec.ValidationError`."""
    return msgspec.json.decode(content, type=Script)


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a piece was emitted (monotonic clock, the same in all processes), and how long after it was due."""

    emitted_ns: int
    late_us: int


def stamped(emitted_ns: int, late_us: int) -> str:
    """Return a piece of text that says when it was emitted."""
    return f"{emitted_ns:014x}{min(late_us, _MAX_LATE_US):06x}"


def stamp_of(text: bytes) -> Stamp:
    """Return what a piece says about its emission."""
    return Stamp(int(text[:_TIME_DIGITS], 16), int(text[_TIME_DIGITS:PIECE_CHARACTERS], 16))


async def pieces(script: Script) -> AsyncIterator[str]:
    """Yield the answer, piece by piece: at the script's pace, or without any pause."""
    start_ns = time.monotonic_ns()
    for number in range(script.pieces):
        late_us = 0
        if script.pause_ms:
            due_ns = start_ns + number * script.pause_ms * _NS_PER_MS
            await asyncio.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            late_us = max(0, time.monotonic_ns() - due_ns) // 1000
        yield stamped(time.monotonic_ns(), late_us)
