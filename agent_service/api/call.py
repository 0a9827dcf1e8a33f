"""One call as its servicer sees it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import grpc.aio
import structlog
from google.protobuf.message import Message

from agent_service.api.auth import token_expired, unauthenticated
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.ports import Clock

MAX_STREAMS_PER_USER: Final = 100
"""Streams of one user in one process: `RunAgent`, `WatchRun`, downloads. The sockets of a gateway are counted apart."""


def draining_error(last_seq: int | None = None) -> ApexError:
    """Return the error for what ends because the service stops."""
    text = "The service is restarting. Connect again; nothing is lost."
    return ApexError(ErrorReason.DRAINING, text, retry_after_ms=1_000, last_seq=last_seq)


def not_there_yet(what: str) -> ApexError:
    """Return the error for what the contract has and this version does not."""
    return ApexError(ErrorReason.UNKNOWN_TYPE, f"{what} is not there yet.")


class Lifetimes:
    """Ends streams when their token does, or when the service drains; and bounds how many a user has."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: set[asyncio.Timeout] = set()
        self._of_user: Counter[str] = Counter()
        self._draining = False

    @contextmanager
    def place(self, user: UserExecutionContext) -> Iterator[None]:
        """Hold one of the user's places for streams. Raises `ApexError` RATE_LIMITED when all are taken."""
        if self._of_user.get(user.user_id, 0) >= MAX_STREAMS_PER_USER:
            text = f"You have {MAX_STREAMS_PER_USER} open streams already. End one, then try again."
            raise ApexError(ErrorReason.RATE_LIMITED, text, retry_after_ms=1_000)
        self._of_user[user.user_id] += 1
        try:
            yield
        finally:
            self._of_user[user.user_id] -= 1
            if not self._of_user[user.user_id]:
                del self._of_user[user.user_id]

    @asynccontextmanager
    async def limit(self, user: UserExecutionContext) -> AsyncIterator[None]:
        """Raise `ApexError` TOKEN_EXPIRED or DRAINING out of the body when it is time."""
        remaining_s = (user.expire_time - self._clock.now()).total_seconds()
        timeout = asyncio.timeout(0 if self._draining else remaining_s)
        self._open.add(timeout)
        try:
            async with timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise (draining_error() if self._draining else token_expired()) from None
        finally:
            self._open.discard(timeout)

    def drain(self) -> None:
        """End every stream, and those that still begin."""
        self._draining = True
        now = asyncio.get_running_loop().time()
        for timeout in tuple(self._open):
            timeout.reschedule(now)


class Call:
    """A call in progress: who called, and the way back."""

    def __init__(
        self, context: grpc.aio.ServicerContext[object, object], request_id: str, user: UserExecutionContext | None
    ) -> None:
        self.request_id = request_id
        self._context = context
        self._user = user
        self._begun = False

    @property
    def user(self) -> UserExecutionContext:
        """The caller. Raises `ApexError(UNAUTHENTICATED)` in a call that needs no token."""
        if self._user is None:
            raise unauthenticated("A token is needed.")
        return self._user

    async def send(self, message: Message | bytes) -> None:
        """Send the next message of the stream; bytes are a message already encoded. Waits while the peer is slow.

        Raises `CancelledError` also when the caller has left and gRPC says so with a failed write: whoever waits here
        is told of most departures that way, and it must not look like a defect of ours.
        """
        try:
            await self._context.write(message)
        except grpc.aio.InternalError as error:
            raise asyncio.CancelledError from error

    async def begin(self, metadata: Sequence[tuple[str, str]] = ()) -> None:
        """Send initial metadata now; a second time does nothing.

        A stream that `Lifetimes` may end must have begun: a first message that is cut off half sent takes the initial
        metadata with it, and then gRPC cannot send the status either. The caller would wait for ever.

        Raises `CancelledError` like `send`.
        """
        if self._begun:
            return
        self._begun = True
        try:
            await self._context.send_initial_metadata(tuple(metadata))
        except grpc.aio.InternalError as error:
            raise asyncio.CancelledError from error

    def bind(self, **ids: str) -> None:
        """Add ids to every further log line of this call."""
        structlog.contextvars.bind_contextvars(**ids)
