"""What differs between the two databases, in one place. Everything else is SQLAlchemy Core that both understand."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy import BigInteger, ColumnElement, Interval, String, bindparam, cast, func, literal_column, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import postgres_append, sqlite_append
from storage.prepared import Query, Transaction
from storage.records import Append, StoredEvent
from storage.schema import UtcTime

#: The name under which `database` registers `str.lower` in SQLite, whose own `lower` knows ASCII only.
SQLITE_LOWER = "apex_lower"

_SQLITE_NOW_US = "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"
_POSTGRES_SERIALISE = (
    # Two keys with the same hash only wait for each other.
    "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
)


class StorageDialect(Protocol):
    """One kind of database."""

    def now(self) -> ColumnElement[datetime]:
        """Return the database's own time as an expression."""
        ...

    def after(self, span_ms: int | ColumnElement[int]) -> ColumnElement[datetime]:
        """Return the database's time in `span_ms` milliseconds as an expression."""
        ...

    def contains(self, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """Return whether `text` contains `part`, upper and lower case being equal."""
        ...

    async def serialise(self, connection: AsyncConnection, *key: str) -> None:
        """Let transactions with this key pass one at a time, from here to their end."""
        ...

    def serialising(self, *key: str) -> Transaction[None]:
        """Do the same as a part of a transaction of prepared statements."""
        ...

    def append(self, appends: Sequence[Append]) -> Transaction[frozenset[str]]:
        """Write every append whose fence holds, and lock its run; return those runs' ids."""
        ...

    def insert_events(self, events: Sequence[StoredEvent]) -> Transaction[None]:
        """Write events."""
        ...


class SqliteDialect:
    """SQLite. Every writing transaction begins with BEGIN IMMEDIATE, so that writers pass one at a time anyway."""

    def now(self) -> ColumnElement[datetime]:
        return self.after(0)

    def after(self, span_ms: int | ColumnElement[int]) -> ColumnElement[datetime]:
        return type_coerce(literal_column(_SQLITE_NOW_US, BigInteger) + span_ms * 1000, UtcTime)

    def contains(self, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
        lower = getattr(func, SQLITE_LOWER)
        return func.instr(lower(text), part.lower()) > 0

    async def serialise(self, connection: AsyncConnection, *key: str) -> None:
        """Nothing to do: see the class."""

    def serialising(self, *key: str) -> Transaction[None]:
        """Nothing to do: see the class."""
        yield from ()

    def append(self, appends: Sequence[Append]) -> Transaction[frozenset[str]]:
        return sqlite_append.append(appends)

    def insert_events(self, events: Sequence[StoredEvent]) -> Transaction[None]:
        return sqlite_append.insert_events(events)


class PostgresDialect:
    """PostgreSQL."""

    def now(self) -> ColumnElement[datetime]:
        return func.clock_timestamp(type_=UtcTime)

    def after(self, span_ms: int | ColumnElement[int]) -> ColumnElement[datetime]:
        count = bindparam(None, span_ms, BigInteger) if isinstance(span_ms, int) else span_ms
        span = count * literal_column("interval '1 millisecond'", Interval)
        return type_coerce(func.clock_timestamp() + span, UtcTime)

    def contains(self, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
        return func.strpos(func.lower(text), func.lower(cast(part, String))) > 0

    async def serialise(self, connection: AsyncConnection, *key: str) -> None:
        await connection.exec_driver_sql(_POSTGRES_SERIALISE, ("\x1f".join(key),))

    def serialising(self, *key: str) -> Transaction[None]:
        yield Query(_POSTGRES_SERIALISE, ("\x1f".join(key),))

    def append(self, appends: Sequence[Append]) -> Transaction[frozenset[str]]:
        return postgres_append.append(appends)

    def insert_events(self, events: Sequence[StoredEvent]) -> Transaction[None]:
        return postgres_append.insert_events(events)
