"""One storage of each kind, empty, for every test that asks for `storage`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import open_database, sqlite_url
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.migrating import migrate
from storage.opening import migrate_storage, open_storage
from storage.schema import metadata
from tests.support.storage import ManualClock, in_own_loop

KINDS = ("memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres))
DATABASES = KINDS[1:]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A SQLite database with all tables: to copy it is quicker than to migrate."""
    data_dir = tmp_path_factory.mktemp("template")
    in_own_loop(lambda: migrate_storage("", data_dir))
    return (data_dir / "apex.db").read_bytes()


@pytest.fixture(scope="module")
def migrated_postgres_url(postgres_url: str) -> str:
    """A PostgreSQL database with all tables."""
    in_own_loop(lambda: _migrate(postgres_url))
    return postgres_url


@pytest.fixture
def data_dir(tmp_path: Path, sqlite_template: bytes) -> Path:
    """A data directory with an empty SQLite database."""
    path = tmp_path / "data"
    path.mkdir()
    (path / "apex.db").write_bytes(sqlite_template)
    return path


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, data_dir: Path) -> str:
    """The address of an empty database of each kind, with all tables."""
    if request.param == "sqlite":
        return sqlite_url(data_dir / "apex.db")
    url: str = request.getfixturevalue("migrated_postgres_url")
    in_own_loop(lambda: _empty(url))
    return url


@pytest.fixture(params=KINDS)
async def storage(request: pytest.FixtureRequest, data_dir: Path) -> AsyncIterator[Storage]:
    """An empty storage of each kind."""
    if request.param == "memory":
        async with _closing(MemoryStorage(ManualClock().now)) as memory:
            yield memory
        return
    url = ""
    if request.param == "postgres":
        url = request.getfixturevalue("migrated_postgres_url")
        await _empty(url)
    async with _closing(await open_storage(url, data_dir)) as storage:
        yield storage


@pytest.fixture
async def every_storage(data_dir: Path, migrated_postgres_url: str) -> AsyncIterator[tuple[Storage, ...]]:
    """An empty storage of each kind at once."""
    await _empty(migrated_postgres_url)
    async with (
        _closing(MemoryStorage(ManualClock().now)) as memory,
        _closing(await open_storage("", data_dir)) as sqlite,
        _closing(await open_storage(migrated_postgres_url, data_dir / "cache")) as postgres,
    ):
        yield memory, sqlite, postgres


@asynccontextmanager
async def _closing(storage: Storage) -> AsyncIterator[Storage]:
    try:
        yield storage
    finally:
        await storage.close()


async def _migrate(url: str) -> None:
    database = open_database(url)
    await migrate(database)
    await database.close()


async def _empty(url: str) -> None:
    database = open_database(url)

    async def work(connection: AsyncConnection) -> None:
        for table in reversed(metadata.sorted_tables):
            await connection.execute(delete(table))

    await database.write(work)
    await database.close()
