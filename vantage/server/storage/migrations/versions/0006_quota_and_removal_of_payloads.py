"""Quota and removal of payloads"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("payload") as batch:
        batch.add_column(sa.Column("organization", sa.String(length=80), server_default="", nullable=False))
        batch.add_column(sa.Column("removing", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch.create_index("ix_payload_organization", ["organization"])
    # An uploader is a user or a node.
    for table in ("user_account", "node"):
        op.execute(
            "UPDATE payload SET organization = COALESCE((SELECT holder.organization"  # noqa: S608  # our own names
            f" FROM {table} AS holder WHERE holder.name = payload.uploader), organization)"
        )


def downgrade() -> None:
    op.drop_index("ix_payload_organization", table_name="payload")
    for column in ("removing", "organization"):
        op.execute(f"ALTER TABLE payload DROP COLUMN {column}")
