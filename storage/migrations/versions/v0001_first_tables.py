"""The first tables: threads, messages, runs, their log, checkpoints and files.

Types are spelled out here and not taken from `storage.schema`: that one goes on, this revision stays as it is.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0001"
down_revision = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.BigInteger().with_variant(TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Make every table."""
    _threads_and_runs()
    _logs()
    _files()


def _threads_and_runs() -> None:
    op.create_table(
        "threads",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("user_id", _KEY, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("update_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_threads"),
    )
    op.create_index("ix_threads_user_id_update_time_id", "threads", ["user_id", "update_time", "id"])
    op.create_table(
        "runs",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("thread_id", _KEY, nullable=False),
        sa.Column("user_id", _KEY, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("client_message_id", _KEY),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("user_message_id", _KEY, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("last_seq", sa.Integer, nullable=False),
        sa.Column("claims", sa.Integer, nullable=False),
        sa.Column("cancel_reason", sa.Text),
        sa.Column("superseded_by_run_id", _KEY),
        sa.Column("worker_id", sa.Text),
        sa.Column("lease_expire_time", _TIME),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("start_time", _TIME),
        sa.Column("end_time", _TIME),
        sa.Column("error_reason", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("thread_id", "position", name="uq_runs_thread_id_position"),
        sa.UniqueConstraint("user_id", "client_message_id", name="uq_runs_user_id_client_message_id"),
        sa.CheckConstraint("(end_time IS NULL) = (status IN ('queued', 'running', 'waiting_approval'))", name="open"),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.id"], name="fk_runs_threads"),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index("ix_runs_user_id_create_time_id", "runs", ["user_id", "create_time", "id"])
    op.create_index(
        "ix_runs_open",
        "runs",
        ["user_id", "thread_id", "position"],
        sqlite_where=sa.text("end_time IS NULL"),
        postgresql_where=sa.text("end_time IS NULL"),
    )
    op.create_table(
        "run_requests",
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_run_requests"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_requests_runs", ondelete="CASCADE"),
    )
    op.create_table(
        "messages",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("thread_id", _KEY, nullable=False),
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("user_id", _KEY, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.id"], name="fk_messages_threads"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_messages_runs", ondelete="CASCADE"),
    )
    op.create_index("ix_messages_run_id", "messages", ["run_id"])
    op.create_index("ix_messages_thread_id_user_id", "messages", ["thread_id", "user_id"])


def _logs() -> None:
    op.create_table(
        "run_events",
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("terminal", sa.Boolean, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "seq", name="pk_run_events"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "checkpoints",
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_checkpoints"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_checkpoints_runs", ondelete="CASCADE"),
    )


def _files() -> None:
    content = ["file_contents.user_id", "file_contents.sha256"]
    op.create_table(
        "file_contents",
        sa.Column("user_id", _KEY, nullable=False),
        sa.Column("sha256", _KEY, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "sha256", name="pk_file_contents"),
    )
    op.create_table(
        "files",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("user_id", _KEY, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", _KEY, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("run_id", _KEY),
        sa.Column("description", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.ForeignKeyConstraint(["user_id", "sha256"], content, name="fk_files_file_contents"),
    )
    op.create_index("ix_files_user_id_create_time_id", "files", ["user_id", "create_time", "id"])
    op.create_index("ix_files_user_id_sha256", "files", ["user_id", "sha256"])
    op.create_table(
        "file_chunks",
        sa.Column("user_id", _KEY, nullable=False),
        sa.Column("sha256", _KEY, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "sha256", "position", name="pk_file_chunks"),
        sa.ForeignKeyConstraint(
            ["user_id", "sha256"], content, name="fk_file_chunks_file_contents", ondelete="CASCADE"
        ),
    )
