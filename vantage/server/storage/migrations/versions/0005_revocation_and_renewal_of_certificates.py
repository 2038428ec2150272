"""Revocation and renewal of certificates"""

import sqlalchemy as sa
from alembic import op

import vantage.server.storage.schema

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "revocation_list",
        sa.Column("organization", sa.String(length=80), nullable=False),
        sa.Column("number", sa.String(length=60), nullable=False),
        sa.Column("signer", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization"],
            ["organization.name"],
            name=op.f("fk_revocation_list_organization"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization", name=op.f("pk_revocation_list")),
    )
    op.create_table(
        "revoked_certificate",
        sa.Column("organization", sa.String(length=80), nullable=False),
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization"],
            ["organization.name"],
            name=op.f("fk_revoked_certificate_organization"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization", "serial", name=op.f("pk_revoked_certificate")),
    )
    op.create_table(
        "used_certificate",
        sa.Column("holder", sa.String(length=160), nullable=False),
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("authority", sa.String(length=64), nullable=False),
        sa.Column("not_before", vantage.server.storage.schema.Instant(), nullable=False),
        sa.Column("first_used", vantage.server.storage.schema.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("holder", "serial", name=op.f("pk_used_certificate")),
    )


def downgrade() -> None:
    op.drop_table("used_certificate")
    op.drop_table("revoked_certificate")
    op.drop_table("revocation_list")
