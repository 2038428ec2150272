"""Signed statements of runs, orders above subtasks, lists of keys"""

import sqlalchemy as sa
from alembic import op

import vantage.server.storage.schema

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "key_bundle",
        sa.Column("holder", sa.String(length=160), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("published", vantage.server.storage.schema.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("holder", name=op.f("pk_key_bundle")),
    )
    op.add_column("run", sa.Column("statement", sa.LargeBinary(), nullable=True))
    op.add_column("task", sa.Column("parent_orders", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("task", "parent_orders")
    op.drop_column("run", "statement")
    op.drop_table("key_bundle")
