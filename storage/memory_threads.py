"""Threads and messages in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from storage.memory_state import MemoryState
from storage.paging import SortKey, cut_page, read_token
from storage.records import MessageRecord, MessageRole, Page, ThreadRecord
from storage.schema import to_microseconds


class MemoryThreads:
    """Implements `storage.interfaces.Threads`."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def create(self, thread: ThreadRecord) -> ThreadRecord:
        self._state.threads[thread.thread_id] = thread
        return thread

    async def get(self, user_id: str, thread_id: str) -> ThreadRecord:
        return self._state.thread(user_id, thread_id)

    async def list(self, user_id: str, *, query: str = "", page_size: int, page_token: str = "") -> Page[ThreadRecord]:
        listing = ("threads", user_id, query)
        after = read_token(page_token, *listing)
        found = [
            thread
            for thread in self._state.threads.values()
            if thread.user_id == user_id
            and (after is None or _thread_key(thread) < after)
            and self._matches(thread, query.lower())
        ]
        return cut_page(sorted(found, key=_thread_key, reverse=True), page_size, _thread_key, *listing)

    async def rename(self, user_id: str, thread_id: str, title: str, update_time: datetime) -> ThreadRecord:
        thread = replace(self._state.thread(user_id, thread_id), title=title, update_time=update_time)
        self._state.threads[thread_id] = thread
        return thread

    async def delete(self, user_id: str, thread_id: str) -> None:
        self._state.thread(user_id, thread_id)
        for run in self._state.runs_of(thread_id):
            del self._state.runs[run.run_id], self._state.events[run.run_id]
            self._state.checkpoints.pop(run.run_id, None)
            self._state.forget_approvals(run.run_id)
        plans, messages = self._state.plans, self._state.messages
        for plan_key in [key for key, plan in plans.items() if plan.thread_id == thread_id]:
            del plans[plan_key]
        for message_id in [key for key, message in messages.items() if message.thread_id == thread_id]:
            del messages[message_id]
        del self._state.threads[thread_id]

    async def list_messages(
        self, user_id: str, thread_id: str, *, page_size: int, page_token: str = ""
    ) -> Page[MessageRecord]:
        listing = ("messages", user_id, thread_id)
        after = read_token(page_token, *listing)
        self._state.thread(user_id, thread_id)
        placed = [
            (position, message)
            for position, message in self._state.visible_messages(thread_id)
            if after is None or _rank(position, message.role) > _rank(after[0], MessageRole(after[1]))
        ]
        page = cut_page(placed, page_size, _message_key, *listing)
        return Page([message for _, message in page.items], page.next_page_token)

    async def history(
        self, user_id: str, thread_id: str, *, before_position: int, limit: int
    ) -> Sequence[MessageRecord]:
        earlier = [
            message
            for position, message in self._state.visible_messages(thread_id)
            if position < before_position and message.user_id == user_id
        ]
        return earlier[max(len(earlier) - limit, 0) :]

    def _matches(self, thread: ThreadRecord, part: str) -> bool:
        return part in thread.title.lower() or any(
            part in message.content.lower() for _, message in self._state.visible_messages(thread.thread_id)
        )


def _thread_key(thread: ThreadRecord) -> SortKey:
    return to_microseconds(thread.update_time), thread.thread_id


def _message_key(item: tuple[int, MessageRecord]) -> SortKey:
    return item[0], item[1].role


def _rank(position: int, role: MessageRole) -> tuple[int, bool]:
    return position, role is not MessageRole.USER
