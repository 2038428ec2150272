"""Tables of what users prove themselves with, beside the password."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, String, Table

from vantage.server.storage.schema import Instant, metadata

one_time_code = Table(
    "one_time_code",
    metadata,
    Column("user", ForeignKey("user_account.name", ondelete="CASCADE"), primary_key=True),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("created", Instant, nullable=False),
    Column("confirmed", Instant, nullable=True),
    Column("last_step", BigInteger, nullable=False),
)
"""TOTP secrets, encrypted. Asked for once confirmed; ``last_step`` is the time step of the last accepted code."""

recovery_code = Table(
    "recovery_code",
    metadata,
    Column("user", ForeignKey("user_account.name", ondelete="CASCADE"), primary_key=True),
    Column("code_hash", LargeBinary, primary_key=True),
)
"""Hashes of the recovery codes that are left: a used one is deleted."""

identity_link = Table(
    "identity_link",
    metadata,
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("user", ForeignKey("user_account.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("created", Instant, nullable=False),
)
"""Who at an identity provider is which user."""

password_reset = Table(
    "password_reset",
    metadata,
    Column("user", ForeignKey("user_account.name", ondelete="CASCADE"), primary_key=True),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("expires", Instant, nullable=False),
)
"""Reset tokens that are not used, at most one per user."""
