"""Brings a database to the schema of this release."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from vantage.common.errors import Reason, error
from vantage.server.storage.database import sqlite_engine


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, from the package instead of a file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def migrate(path: Path, revision: str = "head") -> None:
    """Upgrade the database, all or nothing; creates it when it is not there.

    Raises:
        ConfigurationError: a newer release made it.
    """
    engine = sqlite_engine(path)
    try:
        with engine.connect().execution_options(writing=True) as connection, connection.begin():
            command.upgrade(alembic_config(connection), revision)
    except CommandError as problem:
        raise error(
            Reason.CONFIGURATION_INVALID,
            f"the database {path} cannot be migrated: {problem}; was it made by a newer release of vantage?",
        ) from problem
    finally:
        engine.dispose()


def newest() -> str | None:
    """The revision of this release."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()
