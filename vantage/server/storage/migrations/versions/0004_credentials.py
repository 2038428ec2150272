"""One-time codes, identities at a provider, reset tokens, kinds of users, and more about each log-in"""

import sqlalchemy as sa
from alembic import op

from vantage.server.storage.schema import Instant

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _of_user(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["user"], ["user_account.name"], name=op.f(f"fk_{table}_user"), ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "one_time_code",
        sa.Column("user", sa.String(length=80), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created", Instant(), nullable=False),
        sa.Column("confirmed", Instant(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        _of_user("one_time_code"),
        sa.PrimaryKeyConstraint("user", name=op.f("pk_one_time_code")),
    )
    op.create_table(
        "recovery_code",
        sa.Column("user", sa.String(length=80), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        _of_user("recovery_code"),
        sa.PrimaryKeyConstraint("user", "code_hash", name=op.f("pk_recovery_code")),
    )
    op.create_table(
        "identity_link",
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("user", sa.String(length=80), nullable=False),
        sa.Column("created", Instant(), nullable=False),
        _of_user("identity_link"),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_identity_link")),
    )
    op.create_index(op.f("ix_identity_link_user"), "identity_link", ["user"])
    op.create_table(
        "password_reset",
        sa.Column("user", sa.String(length=80), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires", Instant(), nullable=False),
        _of_user("password_reset"),
        sa.PrimaryKeyConstraint("user", name=op.f("pk_password_reset")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_password_reset_token_hash")),
    )
    # Columns are added in place: making these tables anew would, by their foreign keys, delete what refers to them.
    op.add_column("user_account", sa.Column("kind", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("login_session", sa.Column("method", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("login_session", sa.Column("peer", sa.Text(), nullable=False, server_default=""))
    op.add_column("login_session", sa.Column("refreshed", Instant(), nullable=True))
    op.add_column("login_session", sa.Column("previous_hash", sa.LargeBinary(), nullable=True))
    op.add_column("login_session", sa.Column("rotation_id", sa.String(length=36), nullable=True))
    op.add_column("login_session", sa.Column("certificate", sa.String(length=71), nullable=True))
    op.create_index(op.f("ix_lockout_last_failure"), "lockout", ["last_failure"])


def downgrade() -> None:
    op.drop_index(op.f("ix_lockout_last_failure"), "lockout")
    for column in ("certificate", "rotation_id", "previous_hash", "refreshed", "peer", "method"):
        op.drop_column("login_session", column)
    op.drop_column("user_account", "kind")
    for table in ("password_reset", "identity_link", "recovery_code", "one_time_code"):
        op.drop_table(table)
