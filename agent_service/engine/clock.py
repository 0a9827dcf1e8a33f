"""The real clock and the real ids."""

import time
from datetime import UTC, datetime

import uuid_utils


class SystemClock:
    """Implements `ports.Clock` with the machine's clocks."""

    def now(self) -> datetime:
        """Return the current time, UTC."""
        return datetime.now(UTC)

    def monotonic_ms(self) -> int:
        """Return milliseconds that never go back."""
        return time.monotonic_ns() // 1_000_000


class SystemIds:
    """Implements `ports.Ids` with random UUIDv7: they sort by the time they were made."""

    def new(self) -> str:
        """Return a new UUIDv7."""
        return str(uuid_utils.uuid7())
