"""All of storage behind one address: what the composition root opens and closes."""

import asyncio
from pathlib import Path

from storage.corpora import SqlCorpora
from storage.data_dir import DataDirLock, database_path, files_path
from storage.database import Database, is_embedded, open_database, sqlite_url
from storage.event_log import SqlEventLog
from storage.files import SqlFiles, open_files
from storage.migrating import check_revision, migrate
from storage.plans import SqlActionPlans
from storage.runs import SqlRuns
from storage.threads import SqlThreads


class SqlStorage:
    """Implements `storage.interfaces.Storage`."""

    def __init__(self, database: Database, files: SqlFiles, lock: DataDirLock | None) -> None:
        self._database = database
        self._lock = lock
        self._events = SqlEventLog(database)
        self._runs = SqlRuns(database)
        self._threads = SqlThreads(database)
        self._files = files
        self._corpora = SqlCorpora(database)
        self._plans = SqlActionPlans(database)

    @property
    def events(self) -> SqlEventLog:
        return self._events

    @property
    def runs(self) -> SqlRuns:
        return self._runs

    @property
    def threads(self) -> SqlThreads:
        return self._threads

    @property
    def files(self) -> SqlFiles:
        return self._files

    @property
    def corpora(self) -> SqlCorpora:
        return self._corpora

    @property
    def plans(self) -> SqlActionPlans:
        return self._plans

    async def ping(self) -> None:
        await self._database.ping()

    async def close(self) -> None:
        await self._database.close()
        if self._lock is not None:
            self._lock.release()


async def open_storage(database_url: str, data_dir: Path) -> SqlStorage:
    """Open the database, and the files in the data directory.

    Embedded (SQLite): locks the data directory, and brings the tables to this version. PostgreSQL: the tables must be
    of this version already (`migrate_storage`), for other replicas use them; the data directory is only a cache.

    Args:
        database_url: an address for SQLAlchemy; empty for the SQLite database in the data directory.
        data_dir: made if need be.

    Raises:
        ValueError: the address is of a kind that is not supported.
        DataDirLockedError: embedded, and another service uses the directory.
        SchemaMismatchError: the tables are not of this version.
        StorageUnavailableError: the database cannot be reached.
    """
    url = database_url or sqlite_url(database_path(data_dir))
    database = open_database(url)
    embedded = is_embedded(url)
    lock = await asyncio.to_thread(DataDirLock.acquire, data_dir) if embedded else None
    try:
        await (migrate(database) if embedded else check_revision(database))
        files = await open_files(database, files_path(data_dir), embedded=embedded)
    except BaseException:
        await database.close()
        if lock is not None:
            lock.release()
        raise
    return SqlStorage(database, files, lock)


async def migrate_storage(database_url: str, data_dir: Path) -> None:
    """Bring the tables to this version. Racing calls on PostgreSQL wait for each other.

    Raises: what `open_storage` raises.
    """
    url = database_url or sqlite_url(database_path(data_dir))
    database = open_database(url)
    lock = await asyncio.to_thread(DataDirLock.acquire, data_dir) if is_embedded(url) else None
    try:
        await migrate(database)
    finally:
        await database.close()
        if lock is not None:
            lock.release()
