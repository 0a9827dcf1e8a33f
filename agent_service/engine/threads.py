"""Threads as callers see them. Every error is an `ApexError`."""

import asyncio
from typing import Final

from agent_service.engine.broadcast import Broadcast, ThreadChange, ThreadChangeKind
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.ports import Clock, Ids
from agent_service.engine.runs import OPEN_STATUSES, Runs
from agent_service.engine.translation import translated
from storage.interfaces import Threads as StoredThreads
from storage.records import MessageRecord, Page, ThreadRecord

DELETE_WAIT_MS: Final = 5_000
"""How long a deletion waits for the thread's open runs to end."""


class Threads:
    """Create, read, list, rename and delete threads; list their messages. Subscribers hear of every change."""

    def __init__(self, threads: StoredThreads, runs: Runs, broadcast: Broadcast, clock: Clock, ids: Ids) -> None:
        self._threads = threads
        self._runs = runs
        self._broadcast = broadcast
        self._clock = clock
        self._ids = ids

    async def create(self, user: UserExecutionContext, title: str) -> ThreadRecord:
        """Create an empty thread."""
        now = self._clock.now()
        with translated():
            thread = await self._threads.create(ThreadRecord(self._ids.new(), user.user_id, title, now, now))
        self._broadcast.thread_changed(ThreadChange(ThreadChangeKind.CREATED, thread))
        return thread

    async def get(self, user: UserExecutionContext, thread_id: str) -> ThreadRecord:
        """Return a thread of the user."""
        with translated():
            return await self._threads.get(user.user_id, thread_id)

    async def list(
        self, user: UserExecutionContext, *, query: str, page_size: int, page_token: str
    ) -> Page[ThreadRecord]:
        """List the user's threads, the newest change first; `query` searches titles and messages."""
        with translated():
            return await self._threads.list(user.user_id, query=query, page_size=page_size, page_token=page_token)

    async def rename(self, user: UserExecutionContext, thread_id: str, title: str) -> ThreadRecord:
        """Set the title."""
        with translated():
            thread = await self._threads.rename(user.user_id, thread_id, title, self._clock.now())
        self._broadcast.thread_changed(ThreadChange(ThreadChangeKind.UPDATED, thread))
        return thread

    async def delete(self, user: UserExecutionContext, thread_id: str) -> None:
        """Delete a thread with all that is in it. Its open runs are cancelled first, so that watchers see their end."""
        thread = await self.get(user, thread_id)
        await self._end_open_runs(user, thread_id)
        with translated():
            await self._threads.delete(user.user_id, thread_id)
        self._broadcast.thread_changed(ThreadChange(ThreadChangeKind.DELETED, thread))

    async def _end_open_runs(self, user: UserExecutionContext, thread_id: str) -> None:
        page = await self._runs.list(user, thread_id=thread_id, statuses=OPEN_STATUSES, page_size=200, page_token="")
        watches = []
        try:
            for run in page.items:
                watches.append(await self._broadcast.watch(user, run.run_id, run.last_seq))
                await self._runs.cancel(user, run_id=run.run_id, reason="The thread was deleted.")
            async with asyncio.timeout(DELETE_WAIT_MS / 1000):
                for watch in watches:
                    async for _ in watch:
                        pass
        except TimeoutError:
            text = "A run of this thread does not end. Try again in a moment."
            raise ApexError(ErrorReason.RUN_CONFLICT, text, retry_after_ms=2000) from None
        finally:
            for watch in watches:
                watch.close()

    async def list_messages(
        self, user: UserExecutionContext, thread_id: str, *, page_size: int, page_token: str
    ) -> Page[MessageRecord]:
        """List the thread's messages, oldest first."""
        with translated():
            return await self._threads.list_messages(
                user.user_id, thread_id, page_size=page_size, page_token=page_token
            )
