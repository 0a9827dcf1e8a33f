"""The log as the database holds it, read while a service works on it: without that service, its memory or its word."""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from storage.data_dir import database_path
from storage.interfaces import Storage
from storage.opening import open_storage
from storage.records import MessageRecord, RunRecord
from tests.support.history import LoggedRun

PAGE_SIZE: Final = 200
PAGE_EVENTS: Final = 1_000
PAGE_BYTES: Final = 1 << 24


async def read_runs(database_url: str, data_dir: Path, users: Collection[str]) -> Sequence[LoggedRun]:
    """Return all runs of these users with their events and messages. An empty address: SQLite in the directory."""
    async with _opened(database_url, data_dir) as storage:
        found: list[LoggedRun] = []
        for user_id in users:
            found += [await _read_run(storage, record) for record in await _records(storage, user_id)]
        return found


@asynccontextmanager
async def _opened(database_url: str, data_dir: Path) -> AsyncIterator[Storage]:
    with tempfile.TemporaryDirectory() as folder:
        if not database_url:
            # The service holds the directory's lock: what we read is a copy, taken in one transaction.
            await asyncio.to_thread(_copy, database_path(data_dir), database_path(Path(folder)))
        storage = await open_storage(database_url, Path(folder))
        try:
            yield storage
        finally:
            await storage.close()


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as reading, closing(sqlite3.connect(target)) as writing:
        reading.backup(writing)


async def _records(storage: Storage, user_id: str) -> Sequence[RunRecord]:
    page = await storage.runs.list(user_id, page_size=PAGE_SIZE)
    assert not page.next_page_token, "one page is enough for the runs of a test's user"
    return page.items


async def _read_run(storage: Storage, record: RunRecord) -> LoggedRun:
    events: list[bytes] = []
    while page := await storage.events.read(
        record.user_id, record.run_id, len(events), max_events=PAGE_EVENTS, max_bytes=PAGE_BYTES
    ):
        events += [event.data for event in page]
    return LoggedRun(record, events, await _messages(storage, record))


async def _messages(storage: Storage, record: RunRecord) -> Sequence[MessageRecord]:
    page = await storage.threads.list_messages(record.user_id, record.thread_id, page_size=PAGE_SIZE)
    assert not page.next_page_token, "one page is enough for the messages of a test's thread"
    return [message for message in page.items if message.run_id == record.run_id]
