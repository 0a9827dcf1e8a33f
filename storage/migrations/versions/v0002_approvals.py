"""Questions to people: until when each may be decided, and the arguments that a person gave.

Types are spelled out here, as in every revision.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0002"
down_revision = "0001"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.BigInteger().with_variant(TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "approvals",
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("approval_id", _KEY, nullable=False),
        sa.Column("expire_time", _TIME),
        sa.Column("edited_args", sa.LargeBinary),
        sa.PrimaryKeyConstraint("run_id", "approval_id", name="pk_approvals"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_approvals_runs", ondelete="CASCADE"),
    )
