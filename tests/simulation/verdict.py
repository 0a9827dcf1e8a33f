"""What was seen: the trace of a simulation, and the first promise that was broken in it."""

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Final

KEPT_LINES: Final = 60
"""The end of the trace that is kept for the report of a failure, unless all of it is."""


class BrokenPromiseError(AssertionError):
    """The product did what it must never do."""


class Verdict:
    """Takes down what happens. Product code may swallow an error, so a broken promise is noted here, and ends the loop.

    `digest` is the same for two simulations in which the same happened in the same order at the same time.
    """

    def __init__(self, now: Callable[[], float], *, whole: bool = False) -> None:
        self.broken: str | None = None
        self.lines: deque[str] = deque(maxlen=None if whole else KEPT_LINES)
        self._now = now
        self._hash = hashlib.blake2b(digest_size=16)

    def note(self, line: str) -> None:
        """Add a line to the trace."""
        line = f"{self._now():10.3f}  {line}"
        self.lines.append(line)
        self._hash.update(line.encode())

    def mark(self, data: bytes) -> None:
        """Let the digest depend on these bytes, without a line."""
        self._hash.update(data)

    def fail(self, promise: str) -> None:
        """Note that a promise is broken; only the first one counts."""
        if self.broken is None:
            self.broken = promise
            self.note(f"BROKEN: {promise}")

    def require(self, holds: bool, promise: str) -> None:  # noqa: FBT001 - reads as a sentence
        """Note that a promise is broken unless it holds."""
        if not holds:
            self.fail(promise)

    def check(self) -> None:
        """Raise `BrokenPromiseError` if a promise is broken."""
        if self.broken is not None:
            raise BrokenPromiseError(self.broken)

    @property
    def digest(self) -> str:
        """The hash of all that was noted."""
        return self._hash.hexdigest()
