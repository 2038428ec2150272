"""Facts about this server."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from vantage.server.storage import schema

AUDIENCE = "audience"
BOOTSTRAP_HASH = "bootstrap_hash"
TRUST_VERSION = "trust_version"


def get(connection: Connection, name: str) -> str | None:
    """A value, or None."""
    return connection.execute(select(schema.setting.c.value).where(schema.setting.c.name == name)).scalar_one_or_none()


def put(connection: Connection, name: str, value: str) -> None:
    """Set a value."""
    connection.execute(
        upsert(schema.setting)
        .values(name=name, value=value)
        .on_conflict_do_update(index_elements=["name"], set_={"value": value})
    )


def remove(connection: Connection, name: str) -> bool:
    """Remove a value; whether there was one."""
    return connection.execute(delete(schema.setting).where(schema.setting.c.name == name)).rowcount > 0


def trust_version(connection: Connection) -> int:
    """Changes with every authority, revocation list and membership."""
    return int(get(connection, TRUST_VERSION) or "1")


def trust_changed(connection: Connection) -> None:
    """Call in the transaction that changes an authority, a revocation list or a membership."""
    put(connection, TRUST_VERSION, str(trust_version(connection) + 1))
