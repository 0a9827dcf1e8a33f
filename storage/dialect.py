"""What differs between the two databases, in one place. Everything else is SQLAlchemy Core that both understand."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Interval,
    Select,
    String,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    text,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import postgres_append, sqlite_append
from storage.prepared import Query, Transaction
from storage.records import Append, StoredEvent
from storage.schema import POSTGRES_WORDS, UtcTime, corpus_passages

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
        """Write every append whose fence holds, and lock its run; return those runs' ids.

        May raise `SomeFencedError`, with nothing written, where one does not: then it is `append_held`'s turn.
        """
        ...

    def append_held(self, appends: Sequence[Append]) -> Transaction[frozenset[str]]:
        """Do the same, and never raise `SomeFencedError`."""
        ...

    def insert_events(self, events: Sequence[StoredEvent]) -> Transaction[None]:
        """Write events."""
        ...

    def passages_with(
        self, terms: Sequence[str], corpus_ids: Sequence[str], *, as_beginnings: bool, limit: int
    ) -> Select[int]:
        """Return the query for the ids of the passages that have one of the terms, the likeliest first.

        `terms` and `corpus_ids`: at least one each. `as_beginnings`: also longer words that begin with a term.
        """
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

    def append_held(self, appends: Sequence[Append]) -> Transaction[frozenset[str]]:
        return sqlite_append.append_held(appends)

    def insert_events(self, events: Sequence[StoredEvent]) -> Transaction[None]:
        return sqlite_append.insert_events(events)

    def passages_with(
        self, terms: Sequence[str], corpus_ids: Sequence[str], *, as_beginnings: bool, limit: int
    ) -> Select[int]:
        # In quotes nothing is syntax, and no term holds a quote: it is made of letters and digits.
        wanted = " OR ".join(f'"{term}"' + "*" * as_beginnings for term in terms)
        within = " OR ".join(f'"{corpus_id}"' for corpus_id in corpus_ids)
        # The corpus weighs nothing in the rank.
        matches = text("corpus_index MATCH :wanted").bindparams(wanted=f"corpus_id : ({within}) AND words : ({wanted})")
        rowid: ColumnElement[int] = literal_column("rowid", Integer)
        order = text("bm25(corpus_index, 0.0, 1.0), rowid")
        return select(rowid).select_from(text("corpus_index")).where(matches).order_by(order).limit(limit)


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

    def append_held(self, appends: Sequence[Append]) -> Transaction[frozenset[str]]:
        return postgres_append.append(appends)

    def insert_events(self, events: Sequence[StoredEvent]) -> Transaction[None]:
        return postgres_append.insert_events(events)

    def passages_with(
        self, terms: Sequence[str], corpus_ids: Sequence[str], *, as_beginnings: bool, limit: int
    ) -> Select[int]:
        wanted = " | ".join(f"'{term}'" + ":*" * as_beginnings for term in terms)
        query = func.to_tsquery(text("'simple'::regconfig"), wanted)
        rank = func.ts_rank_cd(POSTGRES_WORDS, query)
        return (
            select(corpus_passages.c.id)
            .where(corpus_passages.c.corpus_id.in_(corpus_ids), POSTGRES_WORDS.op("@@")(query))
            .order_by(rank.desc(), corpus_passages.c.id)
            .limit(limit)
        )
