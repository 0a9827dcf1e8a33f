"""The Attach call: all sockets of a gateway in one stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from agent_service.api.call import Call, draining_error
from agent_service.api.framing import item_frame
from agent_service.api.outbox import Outbox
from agent_service.api.session import Session, SessionServices
from agent_service.api.status import session_ended, watch_ended
from agent_service.api.validation import check
from agent_service.engine.errors import ApexError, ErrorReason
from generated.apex.agent.v1 import agent_pb2 as pb

MAX_SESSIONS: Final = 20_000
"""Sessions of one call."""

DRAIN_TIMEOUT_MS: Final = 2_000
"""How long a draining call waits until the gateway has taken what is left."""


class AttachCall:
    """One gateway. Requests are read without delay and handed to their sessions; one task sends what is ready."""

    def __init__(self, services: SessionServices, call: Call) -> None:
        self._services = services
        self._call = call
        self._outbox = Outbox()
        self._sessions: dict[str, Session] = {}
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End every session, then the call."""
        self._draining.set()

    async def serve(self, requests: AsyncIterator[pb.AttachRequest]) -> None:
        """Return when the gateway has ended its side, or when the service drains."""
        sending = asyncio.create_task(self._send(), name="attach-send")
        reading = asyncio.create_task(self._read(requests), name="attach-read")
        draining = asyncio.create_task(self._draining.wait(), name="attach-drain")
        tasks = (sending, reading, draining)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if draining in done:
                await self._say_goodbye()
            else:
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            for session in tuple(self._sessions.values()):
                session.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self) -> None:
        while True:
            await self._call.send(await self._outbox.take())

    async def _read(self, requests: AsyncIterator[pb.AttachRequest]) -> None:
        async for request in requests:
            await self._outbox.room()
            self._dispatch(request)

    def _dispatch(self, request: pb.AttachRequest) -> None:
        session_id, watch_id = _address(request)
        try:
            check(request)
        except ApexError as error:
            self._refuse(session_id, watch_id, error)
            return
        session = self._sessions.get(session_id)
        match request.WhichOneof("request"):
            case "open_session" if session is None:
                self._open(session_id, request)
            case "close_session" if session is not None:
                session.close()
                # Now, not when its task has ended: the id may be opened again at once.
                self._forget(session)
            case "session_alive" if session is not None:
                session.alive()
            case "close_session" | "session_alive":
                pass
            case "unwatch" if session is None:
                pass
            case _ if session is None:
                self._refuse(session_id, watch_id, ApexError(ErrorReason.NOT_FOUND, "There is no such session."))
            case _:
                session.offer(request)

    def _open(self, session_id: str, request: pb.AttachRequest) -> None:
        if len(self._sessions) >= MAX_SESSIONS:
            text = "This gateway has as many sessions as it may have. Connect to another one."
            self._refuse(session_id, "", ApexError(ErrorReason.TOO_MANY_CONNECTIONS, text))
            return
        session = Session(session_id, self._call.request_id, self._services, self._outbox, self._forget)
        self._sessions[session_id] = session
        session.offer(request)

    def _forget(self, session: Session) -> None:
        if self._sessions.get(session.session_id) is session:
            del self._sessions[session.session_id]

    def _refuse(self, session_id: str, watch_id: str, error: ApexError) -> None:
        item = pb.AttachResponse.Item(session_id=session_id, watch_id=watch_id)
        if watch_id:
            item.watch_ended.CopyFrom(watch_ended(error, 0))
        else:
            item.session_ended.CopyFrom(session_ended(error))
        self._outbox.put(item_frame(item))

    async def _say_goodbye(self) -> None:
        sessions = tuple(self._sessions.values())
        for session in sessions:
            session.fail(draining_error())
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_MS / 1000):
                for session in sessions:
                    await session.ended()
                await self._outbox.flushed()
        except TimeoutError:
            return


def _address(request: pb.AttachRequest) -> tuple[str, str]:
    """Return the session and watch that a request is about, as far as it says so."""
    case = request.WhichOneof("request")
    if case is None:
        return "", ""
    inner = getattr(request, case)
    return inner.session_id, getattr(inner, "watch_id", "")
