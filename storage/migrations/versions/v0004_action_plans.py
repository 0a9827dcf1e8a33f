"""Plans of actions, which people track."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0004"
down_revision = "0003"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.BigInteger().with_variant(TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Make the table of plans."""
    op.create_table(
        "action_plans",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("user_id", _KEY, nullable=False),
        sa.Column("thread_id", _KEY, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("update_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_action_plans"),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.id"], name="fk_action_plans_threads", ondelete="CASCADE"),
    )
    op.create_index("ix_action_plans_user_id_update_time_id", "action_plans", ["user_id", "update_time", "id"])
    op.create_index("ix_action_plans_thread_id", "action_plans", ["thread_id"])
