"""What differs between the two databases, in one place. Everything else is SQLAlchemy Core that both understand."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy import BigInteger, ColumnElement, Interval, String, bindparam, cast, func, literal_column, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.records import Append, StoredEvent
from storage.schema import UtcTime

#: The name under which `database` registers `str.lower` in SQLite, whose own `lower` knows ASCII only.
SQLITE_LOWER = "apex_lower"

# The statements of an append are written by hand: one must do for any number of runs, and Core's own expressions for a
# table made of parameters cost too much per row. They are all that goes below SQLAlchemy Core.

_SQLITE_ADVANCE = """
UPDATE runs SET last_seq = a.last_seq, claims = CASE WHEN a.has_checkpoint THEN 0 ELSE claims END
FROM (
  SELECT value ->> 0 AS id, value ->> 1 AS epoch, value ->> 2 AS after_seq, value ->> 3 AS last_seq,
         value ->> 4 AS has_checkpoint
  FROM json_each(?)
) AS a
WHERE runs.id = a.id AND runs.epoch = a.epoch AND runs.last_seq = a.after_seq AND runs.end_time IS NULL
RETURNING id
"""
_SQLITE_INSERT_EVENTS = "INSERT INTO run_events (run_id, seq, terminal, data) VALUES (?, ?, ?, ?)"
_SQLITE_NOW_US = "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"

# LATERAL: each row is found by its id and locked in the order of the parameters, whatever the statistics say. They are
# ordered by id, so that two writers with runs in common never deadlock. After a wait PostgreSQL tests the conditions
# again on the row's newest version: that is the fence. `num_nulls`: in plainer words the planner sees the index of open
# runs, takes it for tiny, and walks all of it once for each row.
_POSTGRES_ADVANCE = """
WITH locked AS (
  SELECT r.id, a.last_seq, a.has_checkpoint
  FROM unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::bool[])
    AS a (id, epoch, after_seq, last_seq, has_checkpoint)
  CROSS JOIN LATERAL (
    SELECT id FROM runs
    WHERE id = a.id AND epoch = a.epoch AND last_seq = a.after_seq AND num_nulls(end_time) = 1
    FOR NO KEY UPDATE
  ) AS r
)
UPDATE runs AS r
SET last_seq = locked.last_seq, claims = CASE WHEN locked.has_checkpoint THEN 0 ELSE r.claims END
FROM locked WHERE r.id = locked.id
RETURNING r.id
"""
_POSTGRES_INSERT_EVENTS = """
INSERT INTO run_events (run_id, seq, terminal, data)
SELECT * FROM unnest($1::text[], $2::int[], $3::bool[], $4::bytea[])
"""


class StorageDialect(Protocol):
    """One kind of database."""

    def now(self) -> ColumnElement[datetime]:
        """Return the database's own time as an expression."""
        ...

    def after(self, span_ms: int) -> ColumnElement[datetime]:
        """Return the database's time in `span_ms` milliseconds as an expression."""
        ...

    def contains(self, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """Return whether `text` contains `part`, upper and lower case being equal."""
        ...

    async def serialise(self, connection: AsyncConnection, *key: str) -> None:
        """Let transactions with this key pass one at a time, from here to their end."""
        ...

    async def advance(self, connection: AsyncConnection, appends: Sequence[Append]) -> set[str]:
        """Move `last_seq` of every run whose fence holds, and lock it; return those runs' ids."""
        ...

    async def insert_events(self, connection: AsyncConnection, events: Sequence[StoredEvent]) -> None:
        """Write events."""
        ...


class SqliteDialect:
    """SQLite. Every writing transaction begins with BEGIN IMMEDIATE, so that writers pass one at a time anyway."""

    def now(self) -> ColumnElement[datetime]:
        return self.after(0)

    def after(self, span_ms: int) -> ColumnElement[datetime]:
        return type_coerce(literal_column(_SQLITE_NOW_US, BigInteger) + span_ms * 1000, UtcTime)

    def contains(self, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
        lower = getattr(func, SQLITE_LOWER)
        return func.instr(lower(text), part.lower()) > 0

    async def serialise(self, connection: AsyncConnection, *key: str) -> None:
        """Nothing to do: see the class."""

    async def advance(self, connection: AsyncConnection, appends: Sequence[Append]) -> set[str]:
        wanted = [
            (
                append.run_id,
                append.epoch,
                append.after_seq,
                append.after_seq + len(append.events),
                bool(append.checkpoint),
            )
            for append in appends
        ]
        result = await connection.exec_driver_sql(_SQLITE_ADVANCE, (json.dumps(wanted),))
        return set(result.scalars())

    async def insert_events(self, connection: AsyncConnection, events: Sequence[StoredEvent]) -> None:
        rows = [(event.run_id, event.seq, event.terminal, event.data) for event in events]
        await connection.exec_driver_sql(_SQLITE_INSERT_EVENTS, rows)


class PostgresDialect:
    """PostgreSQL."""

    def now(self) -> ColumnElement[datetime]:
        return func.clock_timestamp(type_=UtcTime)

    def after(self, span_ms: int) -> ColumnElement[datetime]:
        span = bindparam(None, span_ms, BigInteger) * literal_column("interval '1 millisecond'", Interval)
        return type_coerce(func.clock_timestamp() + span, UtcTime)

    def contains(self, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
        return func.strpos(func.lower(text), func.lower(cast(part, String))) > 0

    async def serialise(self, connection: AsyncConnection, *key: str) -> None:
        await connection.exec_driver_sql(
            # Two keys with the same hash only wait for each other.
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
            ("\x1f".join(key),),
        )

    async def advance(self, connection: AsyncConnection, appends: Sequence[Append]) -> set[str]:
        by_id = sorted(appends, key=lambda append: append.run_id)
        result = await connection.exec_driver_sql(
            _POSTGRES_ADVANCE,
            (
                [append.run_id for append in by_id],
                [append.epoch for append in by_id],
                [append.after_seq for append in by_id],
                [append.after_seq + len(append.events) for append in by_id],
                [bool(append.checkpoint) for append in by_id],
            ),
        )
        return set(result.scalars())

    async def insert_events(self, connection: AsyncConnection, events: Sequence[StoredEvent]) -> None:
        await connection.exec_driver_sql(
            _POSTGRES_INSERT_EVENTS,
            (
                [event.run_id for event in events],
                [event.seq for event in events],
                [event.terminal for event in events],
                [event.data for event in events],
            ),
        )
