from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from vantage.common.errors import LimitExceededError, Reason, UnavailableError
from vantage.server.storage.database import Database, sqlite_engine


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    path = tmp_path / "test.db"
    engine = sqlite_engine(path)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE item (id INTEGER PRIMARY KEY, commits INTEGER)"))
    engine.dispose()
    opened = Database(path)
    yield opened
    await opened.close()


def insert(number: int) -> Callable[[Connection], int]:
    def unit(connection: Connection) -> int:
        connection.execute(text("INSERT INTO item (id) VALUES (:id)"), {"id": number})
        if number % 10 == 3:
            raise KeyError(number)
        return number

    return unit


def ids(connection: Connection) -> list[int]:
    return list(connection.execute(text("SELECT id FROM item ORDER BY id")).scalars())


async def test_a_unit_that_raises_undoes_itself_alone(database: Database) -> None:
    outcomes = await asyncio.gather(*(database.write(insert(n)) for n in range(100)), return_exceptions=True)
    good = [n for n in range(100) if n % 10 != 3]
    assert [each for each in outcomes if isinstance(each, int)] == good
    assert sum(isinstance(each, KeyError) for each in outcomes) == 10
    assert await database.read(ids) == good


async def test_a_single_failing_unit_is_undone(database: Database) -> None:
    with pytest.raises(KeyError):
        await database.write(insert(3))
    assert await database.read(ids) == []


async def test_what_was_answered_is_durable(database: Database, tmp_path: Path) -> None:
    await database.write(insert(1))
    with sqlite3.connect(tmp_path / "test.db") as other:
        assert other.execute("SELECT id FROM item").fetchall() == [(1,)]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


async def test_close_finishes_what_is_queued(database: Database, tmp_path: Path) -> None:
    occupied, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def occupy(_connection: Connection) -> None:
        loop.call_soon_threadsafe(occupied.set)
        assert release.wait(10)

    first = asyncio.create_task(database.write(occupy))
    await occupied.wait()
    queued = [asyncio.ensure_future(database.submit(insert(n))) for n in (1, 2, 4)]
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)  # until it waits for the writer
    with pytest.raises(UnavailableError):
        await database.write(insert(5))
    release.set()
    await asyncio.gather(first, closing)
    assert await asyncio.gather(*queued) == [1, 2, 4]
    with sqlite3.connect(tmp_path / "test.db") as other:
        assert other.execute("SELECT id FROM item ORDER BY id").fetchall() == [(1,), (2,), (4,)]
    other.close()


async def test_a_full_disk_is_said_and_survived(database: Database) -> None:
    def fill(connection: Connection) -> None:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        for number in range(1000, 3000):
            connection.execute(text("INSERT INTO item (id) VALUES (:id)"), {"id": number})

    def widen(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")

    with pytest.raises(LimitExceededError) as caught:
        await database.write(fill)
    assert caught.value.reason is Reason.STORAGE_FULL
    await database.write(widen)
    await database.write(insert(1))
    assert await database.read(ids) == [1]


async def test_a_database_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    database = Database(tmp_path / "no-such-directory" / "test.db")
    for call in (database.write, database.read):
        with pytest.raises(UnavailableError) as caught:
            await call(ids)
        assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
    await database.close()


async def test_cancelling_a_caller_harms_nobody_else(database: Database) -> None:
    first = asyncio.ensure_future(database.write(insert(1)))
    await asyncio.sleep(0)
    first.cancel()
    await database.write(insert(2))
    assert 2 in await database.read(ids)


async def test_a_lost_transaction_takes_the_whole_group_and_nothing_is_committed_behind_it(database: Database) -> None:
    def lose(connection: Connection) -> None:
        # As SQLite does by itself when the disk is full: everything so far is undone, and no transaction is left.
        connection.execute(text("ROLLBACK"))
        raise sqlite3.OperationalError("database or disk is full")

    # One unit occupies the writer until the others are queued, so that these share a group.
    occupied, queued = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def occupy(_connection: Connection) -> None:
        loop.call_soon_threadsafe(occupied.set)
        assert queued.wait(10)

    first = asyncio.create_task(database.write(occupy))
    await occupied.wait()
    group = [asyncio.ensure_future(database.submit(unit)) for unit in (insert(1), lose, insert(2))]
    queued.set()
    await first
    outcomes = await asyncio.gather(*group, return_exceptions=True)
    assert [getattr(each, "reason", None) for each in outcomes] == [Reason.STORAGE_FULL] * 3
    assert await database.read(ids) == []
    assert await database.write(insert(4)) == 4
    assert await database.read(ids) == [4]
