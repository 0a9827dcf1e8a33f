"""The version of the tables: which one they have, and how they come to ours."""

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.errors import SchemaMismatchError
from storage.schema import REVISION


async def migrate(database: Database) -> None:
    """Bring the tables to this version, in one transaction.

    On PostgreSQL racing calls wait for each other. An embedded database is its data directory's: hold that one's lock.

    Raises:
        SchemaMismatchError: a newer version of Apex has been at work on this database.
    """

    async def work(connection: AsyncConnection) -> None:
        await database.dialect.serialise(connection, "migrate")
        found = await connection.run_sync(_revision)
        if found == REVISION:
            return
        await connection.run_sync(_upgrade, found)

    await database.write(work)


async def check_revision(database: Database) -> None:
    """Raise `SchemaMismatchError` unless the tables are those of this version."""
    found = await database.read(lambda connection: connection.run_sync(_revision))
    if found != REVISION:
        raise SchemaMismatchError(found, REVISION)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _upgrade(connection: Connection, found: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "storage:migrations")
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        # Alembic's word for a revision that it does not know.
        raise SchemaMismatchError(found, REVISION) from error
