"""The bridge's end of the Attach call: one for all sockets, opened again whenever it breaks.

When the service goes away, every socket is told, and told again when it can be reached; what each of them does about
it (opening its session, watching its runs from their cursors) is its session's affair.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol

import grpc

from generated.apex.agent.v1 import agent_pb2 as pb
from generated.apex.agent.v1.agent_pb2_grpc import SessionServiceStub
from ws_bridge.items import Item
from ws_bridge.wire.events import EventTexts
from ws_bridge.wire.items import items_of

if TYPE_CHECKING:  # exists for the type checker only
    from generated.apex.agent.v1.agent_pb2_grpc import SessionServiceAsyncStub

logger = logging.getLogger(__name__)

MAX_WAITING_REQUESTS: Final = 20_000
"""Requests that the service has not taken yet; one more breaks the call, which forgets them all and starts afresh."""
BACKOFF_MIN_MS: Final = 100
BACKOFF_MAX_MS: Final = 5_000
"""Pauses between two calls, in milliseconds; each is spread over its upper half."""

_SESSION_ID: Final[Callable[[pb.AttachResponse.Item], str]] = attrgetter("session_id")


class Sink(Protocol):
    """A socket as the Attach call sees it. No method waits: one socket never delays another."""

    def on_item(self, item: Item) -> None:
        """Take an item."""
        ...

    def on_attached(self) -> None:
        """The service can be reached, and knows nothing of this socket."""
        ...

    def on_lost(self) -> None:
        """The service went away."""
        ...

    def on_defect(self) -> str:
        """Taking an item failed; the socket cannot go on. Return the error's id, for the log."""
        ...


class Upstream:
    """Keeps the Attach call. `run` does the work; the rest may be called at any time."""

    def __init__(self) -> None:
        self._sinks: dict[str, Sink] = {}
        self._requests: asyncio.Queue[pb.AttachRequest] | None = None
        self._call: grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse] | None = None
        self._texts = EventTexts()
        self._attached = asyncio.Event()

    def __len__(self) -> int:
        return len(self._sinks)

    @property
    def attached(self) -> bool:
        """True while the call stands."""
        return self._attached.is_set()

    async def wait_attached(self, timeout_s: float) -> bool:
        """Wait for the service; tell whether it is there after at most `timeout_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._attached.wait()
        return self.attached

    def add(self, session_id: str, sink: Sink) -> None:
        """Deliver the items of a session to a socket from now on."""
        self._sinks[session_id] = sink

    def remove(self, session_id: str) -> None:
        """Drop what may still come for a session."""
        self._sinks.pop(session_id, None)

    def send(self, request: pb.AttachRequest) -> None:
        """Say something about a session. While the service is away nothing is kept: it will know nothing anyway."""
        if self._requests is None or self._call is None:
            return
        if self._requests.full():
            logger.error("The service takes no requests: attaching again.")
            self._call.cancel()
        else:
            self._requests.put_nowait(request)

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Attach, and attach again, until cancelled."""
        stub: SessionServiceAsyncStub = SessionServiceStub(channel)
        failures = 0
        while True:
            await channel.channel_ready()
            served = await self._attach(stub)
            failures = 0 if served else failures + 1
            await asyncio.sleep(_backoff_ms(failures) / 1000)

    async def _attach(self, stub: "SessionServiceAsyncStub") -> bool:
        """Return when the call is over; tell whether the service ever answered on it."""
        served = False
        requests = self._requests = asyncio.Queue(MAX_WAITING_REQUESTS)
        call = self._call = stub.Attach()
        # A task of ours: the one that gRPC makes for an iterator of requests outlives a call that the service ends.
        sending = asyncio.create_task(_send(call, requests), name="attach-requests")
        try:
            self._attached.set()
            self._tell_all(attached=True)
            async for response in call:
                served = True
                self._dispatch(response)
            logger.warning("The service has ended the call: attaching again.")
        except grpc.aio.AioRpcError as error:
            logger.warning("The service went away (%s): attaching again.", error.code().name)
        except asyncio.CancelledError:
            # Cancelling the call, which `send` does, looks the same as cancelling this task.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        finally:
            sending.cancel()
            call.cancel()
            self._requests = self._call = None
            self._attached.clear()
            self._tell_all(attached=False)
        return served

    def _dispatch(self, response: pb.AttachResponse) -> None:
        for session_id, items in groupby(response.items, _SESSION_ID):
            sink = self._sinks.get(session_id)
            if sink is None:
                continue
            try:
                for value in items_of(items, self._texts):
                    sink.on_item(value)
            except Exception:  # the border: whatever is wrong with one socket must not reach the others
                logger.exception("A socket could not take an item (error_id %s).", sink.on_defect())

    def _tell_all(self, *, attached: bool) -> None:
        for sink in tuple(self._sinks.values()):
            try:
                if attached:
                    sink.on_attached()
                else:
                    sink.on_lost()
            except Exception:  # likewise
                said = "back" if attached else "away"
                logger.exception("A socket could not be told: service %s (error_id %s).", said, sink.on_defect())


async def _send(
    call: grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse], requests: asyncio.Queue[pb.AttachRequest]
) -> None:
    """Pass requests on until the call is over; why it is, its reader says."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await call.write(await requests.get())


def _backoff_ms(failures: int) -> float:
    longest = min(BACKOFF_MIN_MS << min(failures, 16), BACKOFF_MAX_MS)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
