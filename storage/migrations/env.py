"""Alembic's entry: runs the revisions on the connection, and in the transaction, that `storage.database` hands in."""

from alembic import context
from sqlalchemy import Connection

from storage.schema import metadata


def run() -> None:
    """Bring the database of the given connection to the wanted revision."""
    connection = context.config.attributes["connection"]
    if not isinstance(connection, Connection):
        raise TypeError("migrations run through storage.migrating.migrate")
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()


run()
