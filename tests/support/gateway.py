"""A gateway for tests: one Attach call, what it says and what it hears."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc.aio

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.face import make_token

if TYPE_CHECKING:  # it exists in the stubs only
    from generated.apex.agent.v1.agent_pb2_grpc import SessionServiceAsyncStub

ITEM_TIMEOUT_S = 10.0


class Gateway:
    """Keeps every item in the order of arrival."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse]") -> None:
        self.call = call
        self.responses = 0
        self._items: asyncio.Queue[pb.AttachResponse.Item | None] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while isinstance(response := await self.call.read(), pb.AttachResponse):
                self.responses += 1
                for item in response.items:
                    self._items.put_nowait(item)
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass
        self._items.put_nowait(None)

    async def say(self, **request: object) -> None:
        """Send one request; the keyword is the oneof case."""
        message = pb.AttachRequest()
        for case, value in request.items():
            getattr(message, case).CopyFrom(value)
        await self.call.write(message)

    async def open(self, session_id: str, token: str = "", *, user_id: str = "ann") -> None:
        await self.say(open_session=pb.OpenSession(session_id=session_id, token=token or make_token(user_id)))

    async def watch(self, session_id: str, watch_id: str, run_id: str, after_seq: int = 0) -> None:
        request = pb.WatchRunItem(session_id=session_id, watch_id=watch_id, run_id=run_id, after_seq=after_seq)
        await self.say(watch_run=request)

    async def item(self) -> pb.AttachResponse.Item:
        """Return the next item."""
        item = await asyncio.wait_for(self._items.get(), ITEM_TIMEOUT_S)
        assert item is not None, "the call has ended"
        return item

    async def expect(self, case: str, session_id: str = "") -> pb.AttachResponse.Item:
        """Return the next item, which must be of this case."""
        item = await self.item()
        assert item.WhichOneof("item") == case, item
        assert not session_id or item.session_id == session_id, item
        return item

    async def until(self, case: str) -> pb.AttachResponse.Item:
        """Return the next item of this case; drop what comes before it."""
        while (item := await self.item()).WhichOneof("item") != case:
            pass
        return item

    async def signed_in(self, session_id: str, *, user_id: str = "ann") -> pb.SessionReady:
        """Open a session and return what it is told."""
        await self.open(session_id, user_id=user_id)
        return (await self.expect("session_ready", session_id)).session_ready

    async def ended(self) -> bool:
        """Return True when the call ends without a further item."""
        return await asyncio.wait_for(self._items.get(), ITEM_TIMEOUT_S) is None

    async def close(self) -> None:
        self.call.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


@asynccontextmanager
async def open_gateway(sessions: "SessionServiceAsyncStub") -> AsyncIterator[Gateway]:
    """Attach until the body ends."""
    gateway = Gateway(sessions.Attach())
    try:
        yield gateway
    finally:
        await gateway.close()
