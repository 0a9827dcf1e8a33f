"""Time and ids, for those who do IO; sessions get both as arguments."""

import time
from datetime import UTC, datetime

import uuid_utils

from ws_bridge.wire.values import datetime_text


class Clock:
    """The machine's clocks, and fresh ids."""

    def monotonic_ms(self) -> int:
        """Return milliseconds that never jump."""
        return time.monotonic_ns() // 1_000_000

    def time_text(self) -> str:
        """Return the time of day, RFC 3339."""
        return datetime_text(datetime.now(UTC))

    def new_id(self) -> str:
        """Return a new UUIDv7."""
        return str(uuid_utils.uuid7())
