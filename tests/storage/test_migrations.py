"""The migrations make the tables that the stores use, and old rows survive them."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from vantage.server.storage import schema, task_schema  # noqa: F401  # the tables join the metadata
from vantage.server.storage.database import sqlite_engine
from vantage.server.storage.migrate import alembic_config, migrate, newest


def test_migrations_and_tables_agree(tmp_path: Path) -> None:
    migrate(tmp_path / "new.db")
    engine = sqlite_engine(tmp_path / "new.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_members_of_the_first_release_stay_members_and_rows_survive_up_and_down(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    migrate(path, "0001")
    engine = sqlite_engine(path)
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        connection.execute(text("INSERT INTO organization VALUES ('organizations/clara', 'Clara', 0)"))
        connection.execute(text("INSERT INTO collaboration VALUES ('collaborations/lungs', '', 'users/root', 0)"))
        connection.execute(text("INSERT INTO member VALUES ('collaborations/lungs', 'organizations/clara')"))
    migrate(path)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT organization, state FROM member")).all() == [("organizations/clara", 2)]
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        command.downgrade(alembic_config(connection), "0001")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM member")).all() == [
            ("collaborations/lungs", "organizations/clara")
        ]
    migrate(path)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == newest()
    engine.dispose()


def test_payloads_of_earlier_releases_count_for_the_organization_of_their_uploader(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    migrate(path, "0005")
    engine = sqlite_engine(path)
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        connection.execute(
            text("INSERT INTO organization (name, display_name, created) VALUES ('organizations/a', '', 0)")
        )
        connection.execute(
            text(
                "INSERT INTO user_account (name, organization, display_name, password_hash, created)"
                " VALUES ('users/rosa', 'organizations/a', '', '', 0), ('users/root', NULL, '', '', 0)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO node (name, organization, created)"
                " VALUES ('organizations/a/nodes/n', 'organizations/a', 0)"
            )
        )
        for number, uploader in enumerate(("users/rosa", "users/root", "organizations/a/nodes/n", "users/gone")):
            connection.execute(
                text("INSERT INTO payload VALUES (:name, :uploader, 'r', 1, 'd', 1, 0)"),
                {"name": f"payloads/{number}", "uploader": uploader},
            )
    migrate(path)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT organization, removing FROM payload ORDER BY name")).all()
    engine.dispose()
    assert found == [("organizations/a", 0), ("", 0), ("organizations/a", 0), ("", 0)]
