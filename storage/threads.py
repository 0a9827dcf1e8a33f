"""Threads and messages in a database."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, case, delete, exists, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.errors import RecordNotFoundError
from storage.paging import SortKey, cut_page, read_token
from storage.records import MessageRecord, MessageRole, Page, ThreadRecord
from storage.rows import AnyRow, message_record, thread_record
from storage.schema import from_microseconds, messages, run_events, runs, threads, to_microseconds

#: A run's user message comes before its assistant message.
_RANK = case((messages.c.role == MessageRole.USER, 0), else_=1)


class SqlThreads:
    """Implements `storage.interfaces.Threads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, thread: ThreadRecord) -> ThreadRecord:
        creation = insert(threads).values(
            id=thread.thread_id,
            user_id=thread.user_id,
            title=thread.title,
            create_time=thread.create_time,
            update_time=thread.update_time,
        )
        await self._database.write(lambda connection: connection.execute(creation))
        return thread

    async def get(self, user_id: str, thread_id: str) -> ThreadRecord:
        return await self._database.read(lambda connection: _get(connection, user_id, thread_id))

    async def list(self, user_id: str, *, query: str = "", page_size: int, page_token: str = "") -> Page[ThreadRecord]:
        listing = ("threads", user_id, query)
        statement = select(threads).where(threads.c.user_id == user_id)
        if query:
            statement = statement.where(self._matches(query))
        if after := read_token(page_token, *listing):
            moment, last_id = after
            statement = statement.where(
                tuple_(threads.c.update_time, threads.c.id) < (from_microseconds(moment), last_id)
            )
        statement = statement.order_by(threads.c.update_time.desc(), threads.c.id.desc()).limit(page_size + 1)
        rows = await self._database.read(lambda connection: connection.execute(statement))
        return cut_page([thread_record(row) for row in rows], page_size, _thread_key, *listing)

    async def rename(self, user_id: str, thread_id: str, title: str, update_time: datetime) -> ThreadRecord:
        renaming = update(threads).where(_is(user_id, thread_id)).values(title=title, update_time=update_time)

        async def work(connection: AsyncConnection) -> ThreadRecord:
            await connection.execute(renaming)
            return await _get(connection, user_id, thread_id)

        return await self._database.write(work)

    async def delete(self, user_id: str, thread_id: str) -> None:
        thread = select(threads.c.id).where(_is(user_id, thread_id)).with_for_update()
        its_runs = select(runs.c.id).where(runs.c.thread_id == thread_id)

        async def work(connection: AsyncConnection) -> None:
            # Threads before runs, runs by id: the order of every lock.
            if (await connection.execute(thread)).one_or_none() is None:
                raise RecordNotFoundError("thread", thread_id)
            await connection.execute(its_runs.order_by(runs.c.id).with_for_update())
            await connection.execute(delete(run_events).where(run_events.c.run_id.in_(its_runs)))
            # With a run go, by their foreign keys, its request, checkpoint and messages; with the thread its plans.
            await connection.execute(delete(runs).where(runs.c.thread_id == thread_id))
            await connection.execute(delete(threads).where(threads.c.id == thread_id))

        await self._database.write(work)

    async def list_messages(
        self, user_id: str, thread_id: str, *, page_size: int, page_token: str = ""
    ) -> Page[MessageRecord]:
        listing = ("messages", user_id, thread_id)
        query = _visible_messages(user_id, thread_id)
        if after := read_token(page_token, *listing):
            position, rank = after
            query = query.where(tuple_(runs.c.position, _RANK) > (position, 0 if rank == MessageRole.USER else 1))
        query = query.order_by(runs.c.position, _RANK).limit(page_size + 1)

        async def work(connection: AsyncConnection) -> Sequence[AnyRow]:
            await _get(connection, user_id, thread_id)
            return (await connection.execute(query)).all()

        page = cut_page(await self._database.read(work), page_size, _message_key, *listing)
        return Page([message_record(row) for row in page.items], page.next_page_token)

    async def history(
        self, user_id: str, thread_id: str, *, before_position: int, limit: int
    ) -> Sequence[MessageRecord]:
        query = (
            _visible_messages(user_id, thread_id)
            .where(runs.c.position < before_position)
            .order_by(runs.c.position.desc(), _RANK.desc())
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query))
        return [message_record(row) for row in rows][::-1]

    def _matches(self, query: str) -> ColumnElement[bool]:
        contains = self._database.dialect.contains
        said = exists().where(
            messages.c.thread_id == threads.c.id,
            messages.c.user_id == threads.c.user_id,
            runs.c.id == messages.c.run_id,
            runs.c.superseded_by_run_id.is_(None),
            contains(messages.c.content, query),
        )
        return or_(contains(threads.c.title, query), said)


def _is(user_id: str, thread_id: str) -> ColumnElement[bool]:
    return and_(threads.c.id == thread_id, threads.c.user_id == user_id)


async def _get(connection: AsyncConnection, user_id: str, thread_id: str) -> ThreadRecord:
    row = (await connection.execute(select(threads).where(_is(user_id, thread_id)))).one_or_none()
    if row is None:
        raise RecordNotFoundError("thread", thread_id)
    return thread_record(row)


def _visible_messages(user_id: str, thread_id: str) -> Select[tuple[object, ...]]:
    return (
        select(*messages.c, runs.c.position, runs.c.superseded_by_run_id)
        .join(runs, runs.c.id == messages.c.run_id)
        .where(
            runs.c.thread_id == thread_id,
            runs.c.user_id == user_id,
            messages.c.user_id == user_id,
            runs.c.superseded_by_run_id.is_(None),
        )
    )


def _thread_key(thread: ThreadRecord) -> SortKey:
    return to_microseconds(thread.update_time), thread.thread_id


def _message_key(row: AnyRow) -> SortKey:
    return row.position, row.role
