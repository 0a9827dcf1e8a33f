"""Migrations: what they make from nothing equals the tables as declared, on both databases."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database, open_database, sqlite_url
from storage.errors import SchemaMismatchError
from storage.migrating import check_revision, migrate
from storage.opening import open_storage
from storage.schema import REVISION, metadata, threads
from tests.support.postgres import PostgresServer, fresh_database
from tests.support.storage import START

# On SQLite, where that index is not made. On PostgreSQL it is compared.
pytestmark = pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")

KINDS = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))

SQLITE_CATALOGUE = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic%' ORDER BY name"
POSTGRES_CATALOGUE = """
SELECT 'column', table_name, column_name, data_type || is_nullable || coalesce(collation_name, '-')
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'index', tablename, indexname, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT 'options', relname, '', reloptions::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
ORDER BY 1, 2, 3
"""


@pytest.fixture(params=KINDS)
async def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a database without tables."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "empty.db")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with fresh_database(server) as url:
        yield url


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Database]:
    database = open_database(empty_url)
    yield database
    await database.close()


async def catalogue(database: Database) -> list[tuple[object, ...]]:
    """Return everything that defines the tables, in words that two databases can be compared by."""

    async def work(connection: AsyncConnection) -> list[tuple[object, ...]]:
        query = SQLITE_CATALOGUE if connection.dialect.name == "sqlite" else POSTGRES_CATALOGUE
        rows = (await connection.execute(text(query))).all()
        return [tuple(" ".join(cell.split()) if isinstance(cell, str) else cell for cell in row) for row in rows]

    return await database.read(work)


def is_declared(name: str | None, kind: str, _parents: object) -> bool:
    """Leave out SQLite's full-text index, which is no table to Alembic; the catalogue compares it."""
    return not (kind == "table" and str(name).startswith("corpus_index"))


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True, "include_name": is_declared}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, metadata))


async def test_migrations_make_the_declared_tables(empty: Database) -> None:
    await migrate(empty)
    assert await empty.read(lambda connection: connection.run_sync(differences)) == []
    migrated = await catalogue(empty)

    def remake(connection: Connection) -> None:
        metadata.drop_all(connection)
        metadata.create_all(connection)

    await empty.write(lambda connection: connection.run_sync(remake))
    assert sorted(migrated, key=str) == sorted(await catalogue(empty), key=str)
    assert len(migrated) > len(metadata.tables)


async def test_the_comparison_sees_a_difference(empty: Database) -> None:
    await migrate(empty)
    await empty.write(lambda connection: connection.execute(text("ALTER TABLE runs ADD COLUMN surplus TEXT")))
    assert await empty.read(lambda connection: connection.run_sync(differences)) != []


async def test_an_older_database_keeps_what_it_holds(empty: Database) -> None:
    def first_tables(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", "storage:migrations")
        command.upgrade(config, "0001")

    async def work(connection: AsyncConnection) -> None:
        await connection.run_sync(first_tables)
        await connection.execute(
            insert(threads).values(id="t", user_id="ada", title="Kept", create_time=START, update_time=START)
        )

    await empty.write(work)
    with pytest.raises(SchemaMismatchError, match="apex migrate"):
        await check_revision(empty)
    await migrate(empty)
    await check_revision(empty)
    kept = await empty.read(lambda connection: connection.execute(text("SELECT title FROM threads")))
    assert kept.scalars().all() == ["Kept"]


async def test_migrating_twice_changes_nothing(empty: Database) -> None:
    await migrate(empty)
    before = await catalogue(empty)
    await migrate(empty)
    assert await catalogue(empty) == before
    await check_revision(empty)


@pytest.mark.postgres
async def test_racing_migrations_wait_for_each_other(postgres_server: PostgresServer) -> None:
    # Of an embedded database there is no race: the lock of its data directory forbids it.
    with fresh_database(postgres_server) as url:
        one, two = open_database(url), open_database(url)
        await asyncio.gather(migrate(one), migrate(two))
        await check_revision(two)
        await one.close()
        await two.close()


async def test_tables_that_are_missing_are_named(empty: Database) -> None:
    with pytest.raises(SchemaMismatchError, match="apex migrate") as refusal:
        await check_revision(empty)
    assert (refusal.value.found, refusal.value.expected) == (None, REVISION)


async def test_a_newer_database_is_left_alone(empty: Database) -> None:
    await migrate(empty)
    await empty.write(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    for refused in (check_revision, migrate):
        with pytest.raises(SchemaMismatchError, match="9999"):
            await refused(empty)


def test_the_declared_revision_is_the_newest() -> None:
    config = Config()
    config.set_main_option("script_location", "storage:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_migrations_run_from_any_directory(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib; from storage.opening import migrate_storage; "
        "asyncio.run(migrate_storage('', pathlib.Path('data')))"
    )
    repository = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(repository)},
        check=True,
        timeout=30,
    )
    assert (tmp_path / "data" / "apex.db").exists()


async def test_the_embedded_database_is_migrated_at_start(tmp_path: Path) -> None:
    storage = await open_storage("", tmp_path / "new" / "data")
    await storage.ping()
    assert (await storage.threads.list("ada", page_size=1)).items == []
    await storage.close()


@pytest.mark.postgres
async def test_a_shared_database_is_not_migrated_at_start(postgres_server: PostgresServer, tmp_path: Path) -> None:
    with fresh_database(postgres_server) as url, pytest.raises(SchemaMismatchError):
        await open_storage(url, tmp_path)
