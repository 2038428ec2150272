"""What nodes share of their datasets"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The release before goes on inserting rows without it.
    op.add_column("presence", sa.Column("catalogue", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    op.execute("ALTER TABLE presence DROP COLUMN catalogue")
