"""Custom roles, consent of members, studies, audit"""

import sqlalchemy as sa
from alembic import op

import vantage.server.storage.schema

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_Instant = vantage.server.storage.schema.Instant


def upgrade() -> None:
    op.create_table(
        "role",
        sa.Column("name", sa.String(length=160), nullable=False),
        sa.Column("organization", sa.String(length=80), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("creator", sa.String(length=160), nullable=False),
        sa.Column("created", _Instant(), nullable=False),
        sa.ForeignKeyConstraint(["organization"], ["organization.name"], name=op.f("fk_role_organization")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_role")),
    )
    op.create_index(op.f("ix_role_organization"), "role", ["organization"])
    op.create_table(
        "role_permission",
        sa.Column("role", sa.String(length=160), nullable=False),
        sa.Column("resource", sa.Integer(), nullable=False),
        sa.Column("operation", sa.Integer(), nullable=False),
        sa.Column("scope", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["role"], ["role.name"], name=op.f("fk_role_permission_role"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("role", "resource", "operation", name=op.f("pk_role_permission")),
    )
    op.create_table(
        "study",
        sa.Column("name", sa.String(length=160), nullable=False),
        sa.Column("collaboration", sa.String(length=80), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("creator", sa.String(length=160), nullable=False),
        sa.Column("created", _Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collaboration"], ["collaboration.name"], name=op.f("fk_study_collaboration"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_study")),
    )
    op.create_index(op.f("ix_study_collaboration"), "study", ["collaboration"])
    op.create_table(
        "study_organization",
        sa.Column("study", sa.String(length=160), nullable=False),
        sa.Column("organization", sa.String(length=80), nullable=False),
        sa.ForeignKeyConstraint(
            ["study"], ["study.name"], name=op.f("fk_study_organization_study"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["organization"], ["organization.name"], name=op.f("fk_study_organization_organization")
        ),
        sa.PrimaryKeyConstraint("study", "organization", name=op.f("pk_study_organization")),
    )
    op.create_index(op.f("ix_study_organization_organization"), "study_organization", ["organization"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("time", _Instant(), nullable=False),
        sa.Column("event", sa.String(length=120), nullable=False),
        sa.Column("decision", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("principal", sa.String(length=160), nullable=False),
        sa.Column("organization", sa.String(length=80), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.Column("peer", sa.String(length=120), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("exported", sa.Boolean(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    for column in ("time", "principal", "organization", "target"):
        op.create_index(op.f(f"ix_audit_{column}"), "audit", [column])
    op.create_index(
        "ix_audit_exported",
        "audit",
        ["exported"],
        sqlite_where=sa.text("NOT exported"),
        postgresql_where=sa.text("NOT exported"),
    )
    # Whoever was a member stays one: consent was given under the rules of then.
    with op.batch_alter_table("member") as batch:
        batch.add_column(sa.Column("state", sa.Integer(), server_default="2", nullable=False))
        batch.add_column(sa.Column("invited_by", sa.String(length=160), server_default="", nullable=False))
        batch.add_column(sa.Column("since", _Instant(), server_default="0", nullable=False))
    with op.batch_alter_table("user_role") as batch:
        batch.alter_column("role", existing_type=sa.String(length=80), type_=sa.String(length=160))
    with op.batch_alter_table("task") as batch:
        batch.add_column(sa.Column("study", sa.String(length=160), server_default="", nullable=False))


def downgrade() -> None:
    # Not in batch mode: SQLite would drop the table to make it again, and with it all rows that refer to it.
    op.execute("ALTER TABLE task DROP COLUMN study")
    with op.batch_alter_table("user_role") as batch:
        batch.alter_column("role", existing_type=sa.String(length=160), type_=sa.String(length=80))
    for column in ("since", "invited_by", "state"):
        op.execute(f"ALTER TABLE member DROP COLUMN {column}")
    for table in ("audit", "study_organization", "study", "role_permission", "role"):
        op.drop_table(table)
