"""How many connections a user has. A new one may take the place of one that no longer answers."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from agent_service.engine.errors import ApexError, ErrorReason

PROBE_TIMEOUT_MS: Final = 2_000
"""How long a probed connection may take to answer."""

FULL_RETRY_AFTER_MS: Final = 10_000
"""When a refused connection may try again."""


class Seat(Protocol):
    """One connection of a user."""

    def probe(self, timeout_ms: int) -> None:
        """Ask the connection to answer within this time."""
        ...

    def evict(self) -> None:
        """End the connection: it did not answer, and its place was needed."""
        ...


class _User:
    """The seats of one user, oldest first, and whether each has answered the probe that is under way."""

    def __init__(self) -> None:
        self.seats: dict[Seat, bool] = {}
        self.changed = asyncio.Event()
        self.entering = asyncio.Lock()
        self.waiting = 0

    def silent(self) -> Sequence[Seat]:
        return [seat for seat, answered in self.seats.items() if not answered]


class Connections:
    """Counts the connections of this process by user."""

    def __init__(self, max_per_user: int, *, probe_timeout_ms: int = PROBE_TIMEOUT_MS) -> None:
        self._max_per_user = max_per_user
        self._probe_timeout_ms = probe_timeout_ms
        self._users: dict[str, _User] = {}

    async def enter(self, user_id: str, seat: Seat) -> None:
        """Take a place; when all are taken, that of the oldest connection that does not answer a probe.

        Raises `ApexError(TOO_MANY_CONNECTIONS)` when all are alive, or when as many wait for an answer already.
        """
        user = self._users.setdefault(user_id, _User())
        if user.waiting >= self._max_per_user:
            raise self._full()
        user.waiting += 1
        try:
            async with user.entering:
                if len(user.seats) >= self._max_per_user:
                    await self._make_room(user)
                if len(user.seats) >= self._max_per_user:
                    raise self._full()
                user.seats[seat] = True
        finally:
            user.waiting -= 1
            self._forget_if_empty(user_id, user)

    def leave(self, user_id: str, seat: Seat) -> None:
        """Give the place back. Safe to call twice."""
        user = self._users.get(user_id)
        if user is not None:
            user.seats.pop(seat, None)
            user.changed.set()
            self._forget_if_empty(user_id, user)

    def answered(self, user_id: str, seat: Seat) -> None:
        """The connection has answered a probe."""
        user = self._users.get(user_id)
        if user is not None and seat in user.seats:
            user.seats[seat] = True
            user.changed.set()

    def count(self, user_id: str) -> int:
        """Return how many connections the user has."""
        user = self._users.get(user_id)
        return len(user.seats) if user is not None else 0

    async def _make_room(self, user: _User) -> None:
        for seat in user.seats:
            user.seats[seat] = False
            seat.probe(self._probe_timeout_ms)
        try:
            async with asyncio.timeout(self._probe_timeout_ms / 1000):
                await _until(user.changed, lambda: len(user.seats) < self._max_per_user or not user.silent())
        except TimeoutError:
            silent = user.silent()
            # In the same moment the last one may have answered, or another may have left.
            if silent and len(user.seats) >= self._max_per_user:
                del user.seats[silent[0]]
                silent[0].evict()

    def _full(self) -> ApexError:
        text = f"You have {self._max_per_user} open connections already. Close one, then connect again."
        return ApexError(ErrorReason.TOO_MANY_CONNECTIONS, text, retry_after_ms=FULL_RETRY_AFTER_MS)

    def _forget_if_empty(self, user_id: str, user: _User) -> None:
        if not user.seats and not user.waiting:
            self._users.pop(user_id, None)


async def _until(changed: asyncio.Event, condition: Callable[[], bool]) -> None:
    while not condition():
        changed.clear()
        await changed.wait()
