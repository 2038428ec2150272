"""In whose name runs wait, for a fair hand-out"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The release before goes on inserting rows without it: they count as those of one more owner.
    op.add_column("run", sa.Column("owner", sa.String(160), server_default="", nullable=False))
    # Of leased ones as well: they count for their owners, and may go back to the queue.
    op.execute("UPDATE run SET owner = (SELECT owner FROM task WHERE task.name = run.task) WHERE state IN (1, 2, 3)")
    op.create_index(
        "ix_run_waiting",
        "run",
        ["organization", "owner", "name"],
        sqlite_where=sa.text("state = 1"),
        postgresql_where=sa.text("state = 1"),
    )


def downgrade() -> None:
    op.drop_index("ix_run_waiting", "run")
    op.execute("ALTER TABLE run DROP COLUMN owner")
