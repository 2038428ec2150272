"""Facts about this server that are made once."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from vantage.server.storage import schema

AUDIENCE = "audience"
BOOTSTRAP_HASH = "bootstrap_hash"


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
