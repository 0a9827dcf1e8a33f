"""Knowledge bases: corpora, their documents and passages, and the full-text index of each database.

Types and the index are spelled out here and not taken from `storage.schema`: that one goes on, this revision stays.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0003"
down_revision = "0002"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.BigInteger().with_variant(TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Make the tables and the index."""
    _corpora_and_documents()
    _passages()
    if op.get_bind().dialect.name == "sqlite":
        _sqlite_index()
    else:
        words = sa.text("to_tsvector('simple'::regconfig, words)")
        op.create_index("ix_corpus_passages_words", "corpus_passages", [words], postgresql_using="gin")


def _corpora_and_documents() -> None:
    op.create_table(
        "corpora",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("user_id", _KEY, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("name_key", _KEY, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("update_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_corpora"),
        sa.UniqueConstraint("user_id", "name_key", name="uq_corpora_user_id_name_key"),
    )
    op.create_table(
        "corpus_documents",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("corpus_id", _KEY, nullable=False),
        sa.Column("user_id", _KEY, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("sha256", _KEY, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("passages", sa.Integer, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("update_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_corpus_documents"),
        sa.UniqueConstraint("corpus_id", "sha256", name="uq_corpus_documents_corpus_id_sha256"),
        sa.ForeignKeyConstraint(["corpus_id"], ["corpora.id"], name="fk_corpus_documents_corpora", ondelete="CASCADE"),
    )
    op.create_index(
        "ix_corpus_documents_corpus_id_create_time_id", "corpus_documents", ["corpus_id", "create_time", "id"]
    )


def _passages() -> None:
    op.create_table(
        "corpus_passages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("corpus_id", _KEY, nullable=False),
        sa.Column("document_id", _KEY, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("heading", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_corpus_passages"),
        sa.UniqueConstraint("document_id", "position", name="uq_corpus_passages_document_id_position"),
        sa.ForeignKeyConstraint(["corpus_id"], ["corpora.id"], name="fk_corpus_passages_corpora", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["document_id"], ["corpus_documents.id"], name="fk_corpus_passages_corpus_documents", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_corpus_passages_corpus_id", "corpus_passages", ["corpus_id"])


def _sqlite_index() -> None:
    op.execute(
        """
        CREATE VIRTUAL TABLE corpus_index USING fts5(
            corpus_id, words, content='corpus_passages', content_rowid='id', tokenize='unicode61 remove_diacritics 0'
        )
        """
    )
    op.execute(
        """
        CREATE TRIGGER corpus_index_insert AFTER INSERT ON corpus_passages BEGIN
            INSERT INTO corpus_index (rowid, corpus_id, words) VALUES (new.id, new.corpus_id, new.words);
        END
        """
    )
    op.execute(
        """
        CREATE TRIGGER corpus_index_delete AFTER DELETE ON corpus_passages BEGIN
            INSERT INTO corpus_index (corpus_index, rowid, corpus_id, words)
            VALUES ('delete', old.id, old.corpus_id, old.words);
        END
        """
    )
