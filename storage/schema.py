"""The tables. `migrations` makes them in a database; a test holds the two equal."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

#: The Alembic revision that makes exactly these tables.
REVISION = "0004"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """Return microseconds since 1970 UTC. Raises `ValueError` for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a stored time needs a time zone")
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(count: int) -> datetime:
    """Return the UTC time that is `count` microseconds after 1970."""
    return _EPOCH + count * _MICROSECOND


class UtcTime(TypeDecorator[datetime]):
    """A UTC time to the microsecond: `timestamptz` on PostgreSQL, whole microseconds on SQLite."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = BigInteger
    cache_ok: bool | None = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return super().load_dialect_impl(dialect)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | int | None:
        if value is None or dialect.name == "postgresql":
            return value
        return to_microseconds(value)

    def process_result_value(self, value: datetime | int | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return from_microseconds(value) if isinstance(value, int) else value.astimezone(UTC)


#: Ids compare byte by byte on both databases: UUIDv7 order is then creation order, whatever the locale.
KEY = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

threads = Table(
    "threads",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("user_id", KEY, nullable=False),
    Column("title", Text, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("update_time", UtcTime, nullable=False),
    Index(None, "user_id", "update_time", "id"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("thread_id", KEY, ForeignKey("threads.id"), nullable=False),
    Column("user_id", KEY, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("position", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("agent", Text, nullable=False),
    # NULL is "no key", so that the unique constraint lets any number of those in.
    Column("client_message_id", KEY),
    Column("fingerprint", Text, nullable=False),
    Column("user_message_id", KEY, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("last_seq", Integer, nullable=False),
    Column("claims", Integer, nullable=False),
    Column("cancel_reason", Text),
    Column("superseded_by_run_id", KEY),
    Column("worker_id", Text),
    Column("lease_expire_time", UtcTime),
    Column("create_time", UtcTime, nullable=False),
    Column("start_time", UtcTime),
    Column("end_time", UtcTime),
    Column("error_reason", Text),
    UniqueConstraint("thread_id", "position"),
    UniqueConstraint("user_id", "client_message_id"),
    # Every statement asks "is it open?" as `end_time IS NULL`: that is what the partial index below covers.
    CheckConstraint("(end_time IS NULL) = (status IN ('queued', 'running', 'waiting_approval'))", name="open"),
    Index(None, "user_id", "create_time", "id"),
    # Room in each page: the changed row then stays where it is, and the indexes need no change (PostgreSQL's HOT).
    postgresql_with={"fillfactor": "50"},
)
Index(
    "ix_runs_open",
    runs.c.user_id,
    runs.c.thread_id,
    runs.c.position,
    sqlite_where=runs.c.end_time.is_(None),
    postgresql_where=runs.c.end_time.is_(None),
)

# Apart from `runs`: every append updates its run's row, and a database writes a changed row whole.
run_requests = Table(
    "run_requests",
    metadata,
    Column("run_id", KEY, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("request", LargeBinary, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("thread_id", KEY, ForeignKey("threads.id"), nullable=False),
    Column("run_id", KEY, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", KEY, nullable=False),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Index(None, "run_id"),
    Index(None, "thread_id", "user_id"),
)

# No foreign key and no user_id: an append holds its run's row, and a reader comes through it. Both would cost a look-up
# or an index entry for each event of the one hot table.
run_events = Table(
    "run_events",
    metadata,
    Column("run_id", KEY, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("terminal", Boolean, nullable=False),
    Column("data", LargeBinary, nullable=False),
    # One b-tree in place of two, with a run's events side by side.
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("run_id", KEY, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# What the log cannot hold of a question to a person: until when, by the database's clock, it may be decided (NULL once
# it is), and the arguments that the person gave, which may hold secrets.
approvals = Table(
    "approvals",
    metadata,
    Column("run_id", KEY, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("approval_id", KEY, primary_key=True),
    Column("expire_time", UtcTime),
    Column("edited_args", LargeBinary),
)

file_contents = Table(
    "file_contents",
    metadata,
    Column("user_id", KEY, primary_key=True),
    Column("sha256", KEY, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("user_id", KEY, nullable=False),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", KEY, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("run_id", KEY),
    Column("description", Text, nullable=False),
    ForeignKeyConstraint(["user_id", "sha256"], ["file_contents.user_id", "file_contents.sha256"]),
    Index(None, "user_id", "create_time", "id"),
    Index(None, "user_id", "sha256"),
)

# Filled on PostgreSQL only; the embedded database keeps content in the data directory.
file_chunks = Table(
    "file_chunks",
    metadata,
    Column("user_id", KEY, primary_key=True),
    Column("sha256", KEY, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    ForeignKeyConstraint(["user_id", "sha256"], ["file_contents.user_id", "file_contents.sha256"], ondelete="CASCADE"),
)

corpora = Table(
    "corpora",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("user_id", KEY, nullable=False),
    Column("name", Text, nullable=False),
    # What makes two names the same.
    Column("name_key", KEY, nullable=False),
    Column("description", Text, nullable=False),
    # Grows with every change of the corpus and its documents.
    Column("revision", Integer, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("update_time", UtcTime, nullable=False),
    UniqueConstraint("user_id", "name_key"),
)

corpus_documents = Table(
    "corpus_documents",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("corpus_id", KEY, ForeignKey("corpora.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", KEY, nullable=False),
    Column("title", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("sha256", KEY, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("passages", Integer, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("update_time", UtcTime, nullable=False),
    UniqueConstraint("corpus_id", "sha256"),
    Index(None, "corpus_id", "create_time", "id"),
)

# Rows are written and deleted, never changed: the full-text index of SQLite follows by its triggers.
corpus_passages = Table(
    "corpus_passages",
    metadata,
    # A number, for that is what a full-text index of SQLite points to.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("corpus_id", KEY, ForeignKey("corpora.id", ondelete="CASCADE"), nullable=False),
    Column("document_id", KEY, ForeignKey("corpus_documents.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("heading", Text, nullable=False),
    Column("text", Text, nullable=False),
    # What `full_text.index_words` made of the passage.
    Column("words", Text, nullable=False),
    UniqueConstraint("document_id", "position"),
    Index(None, "corpus_id"),
)

#: PostgreSQL's own reading of `words`: they are stems already. A query must say it the same way to use the index.
POSTGRES_WORDS = func.to_tsvector(text("'simple'::regconfig"), corpus_passages.c.words)
Index("ix_corpus_passages_words", POSTGRES_WORDS, postgresql_using="gin").ddl_if(dialect="postgresql")

# SQLite's index holds no text of its own. The corpus is in it so that a search reads no other corpora's entries.
SQLITE_CORPUS_INDEX = (
    """
    CREATE VIRTUAL TABLE corpus_index USING fts5(
        corpus_id, words, content='corpus_passages', content_rowid='id', tokenize='unicode61 remove_diacritics 0'
    )
    """,
    """
    CREATE TRIGGER corpus_index_insert AFTER INSERT ON corpus_passages BEGIN
        INSERT INTO corpus_index (rowid, corpus_id, words) VALUES (new.id, new.corpus_id, new.words);
    END
    """,
    """
    CREATE TRIGGER corpus_index_delete AFTER DELETE ON corpus_passages BEGIN
        INSERT INTO corpus_index (corpus_index, rowid, corpus_id, words)
        VALUES ('delete', old.id, old.corpus_id, old.words);
    END
    """,
)


def _make_corpus_index(_table: Table, connection: Connection, **_: object) -> None:
    if connection.dialect.name == "sqlite":
        for statement in SQLITE_CORPUS_INDEX:
            connection.exec_driver_sql(statement)


def _drop_corpus_index(_table: Table, connection: Connection, **_: object) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP TABLE corpus_index")


event.listen(corpus_passages, "after_create", _make_corpus_index)
event.listen(corpus_passages, "before_drop", _drop_corpus_index)
# A plan goes with the conversation that it was made in.
action_plans = Table(
    "action_plans",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("user_id", KEY, nullable=False),
    Column("thread_id", KEY, ForeignKey("threads.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("update_time", UtcTime, nullable=False),
    Index(None, "user_id", "update_time", "id"),
    Index(None, "thread_id"),
)
