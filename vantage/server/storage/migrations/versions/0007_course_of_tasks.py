"""Quorum, failure policy, limits and attempts of tasks"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TASK = ("quorum", "on_failure", "max_runtime", "max_attempts", "detached")
_RUN = ("max_attempts", "retry_time")


def upgrade() -> None:
    # Tasks of the release before get what it did with all of them; it goes on inserting rows without these columns.
    op.add_column("task", sa.Column("quorum", sa.Integer(), server_default="0", nullable=False))
    op.add_column("task", sa.Column("on_failure", sa.Integer(), server_default="1", nullable=False))
    op.add_column("task", sa.Column("max_runtime", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("task", sa.Column("max_attempts", sa.Integer(), server_default="3", nullable=False))
    op.add_column("task", sa.Column("detached", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("run", sa.Column("max_attempts", sa.Integer(), server_default="3", nullable=False))
    op.add_column("run", sa.Column("retry_time", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    for table, columns in (("task", _TASK), ("run", _RUN)):
        for column in columns:
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
