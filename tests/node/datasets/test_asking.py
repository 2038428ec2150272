"""What happens to a question when nobody waits for its answer any more, and who writes the answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.node.datasets.test_queries import TURTLE
from vantage.common.errors import Reason, VantageError
from vantage.node.datasets import asking
from vantage.node.datasets.asking import Asker
from vantage.node.datasets.sections import DatasetSection
from vantage.node.datasets.sql import Sql
from vantage.node.datasets.tables import TableFile
from vantage.node.door import Question
from vantage.testing.postgres import Postgres
from vantage.testing.sparql import SparqlEndpoint

ASKED = Question("all", {})


def dataset(query: str, **keys: Any) -> DatasetSection:
    return DatasetSection.model_validate({"name": "asked", "queries": {"all": query}, **keys})


async def test_a_question_that_had_no_turn_leaves_nothing(tmp_path: Path) -> None:
    asker, turn = Asker(1), threading.Event()
    asker._threads.submit(turn.wait)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await asker.answer(
                dataset("SELECT 1 AS a", format="sql", url="sqlite://"), ASKED, tmp_path / "run" / "data" / "a.parquet"
            )
    turn.set()
    await asyncio.wrap_future(asker._threads.submit(int))
    assert not (tmp_path / "run").exists()
    asker.close()


async def test_waiting_for_a_turn_does_not_count_for_the_time_of_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker, turn = Asker(1), threading.Event()
    asker._threads.submit(turn.wait)
    one = dataset("SELECT 1 AS a", format="sql", url="sqlite://", timeout="1s")
    with monkeypatch.context() as at_once:
        at_once.setattr(asking, "GRACE_SECONDS", 0.0)
        asked = asyncio.create_task(asker.answer(one, ASKED, tmp_path / "a" / "a.parquet"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await asyncio.shield(asked)
        # It waits for so long and no longer, and is not told to ask for less.
        at_once.setattr(asking, "WAIT_SECONDS", 0.05)
        with pytest.raises(VantageError, match="ask again later") as caught:
            await asker.answer(one, ASKED, tmp_path / "b" / "b.parquet")
    assert caught.value.reason is Reason.DATASET_UNAVAILABLE
    turn.set()
    assert (await asked).rows == 1
    assert not (tmp_path / "b").exists()
    asker.close()


async def test_an_answer_of_an_endpoint_is_written_by_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Arrow's writers are not for several: one that is closed while another writes may take the process with it.
    seen = set()
    for name in ("__enter__", "write", "__exit__"):
        original = getattr(TableFile, name)

        def noted(*given: Any, original: Any = original) -> Any:
            seen.add(threading.get_ident())
            return original(*given)

        monkeypatch.setattr(TableFile, name, noted)
    query = "SELECT ?name { ?s <http://example.org/name> ?name } ORDER BY ?name"
    with SparqlEndpoint(TURTLE, "reader", "hidden") as endpoint:
        (tmp_path / "password").write_text("hidden")
        url = f"http://reader@{endpoint.address}/sparql"
        graph = dataset(query, format="sparql", url=url, password_file=tmp_path / "password")
        written = await Asker(1).answer(graph, ASKED, tmp_path / "data" / "a.parquet")
    assert written.rows == pq.read_metadata(tmp_path / "data" / "a.parquet").num_rows == 3
    assert len(seen) == 1


async def test_rows_of_a_table_are_counted_whatever_its_name_is(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "some.db")) as database:
        database.execute('CREATE TABLE "select :a ""%s""" (a INTEGER)')
        database.execute('INSERT INTO "select :a ""%s""" VALUES (1), (2)')
        database.commit()
    asker = Asker(1)
    found = await asker.tables(dataset("SELECT 1", format="sql", url=f"sqlite:///{tmp_path}/some.db"), count=True)
    assert [(each.name, each.rows) for each in found] == [('select :a "%s"', 2)]
    asker.close()


@pytest.mark.postgresql
@pytest.mark.parametrize(("said", "idle"), [("", 30), ("?keepalives_idle=7", 7)])
async def test_a_database_that_is_gone_is_noticed(tmp_path: Path, postgres: Postgres, said: str, idle: int) -> None:
    def after(sql: Sql) -> int:
        with sql._connected(), socket.socket(fileno=os.dup(sql._connection.fileno())) as connection:
            return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)

    (tmp_path / "password").write_text(postgres.password)
    url = f"postgresql://reader@127.0.0.1:{postgres.port}/registry{said}"
    asker = Asker(1)
    asked = dataset("SELECT 1", format="postgresql", url=url, password_file=tmp_path / "password")
    assert await asker._sql(asked, after) == idle
    asker.close()


@pytest.mark.postgresql
async def test_a_database_that_does_not_even_take_a_cancellation_keeps_nobody(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "GRACE_SECONDS", 0.3)
    asked = asyncio.Event()
    kept: list[asyncio.StreamWriter] = []

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if b"pg_sleep" in data:
                    asked.set()
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)
        if not asked.is_set():  # else it is taken, and never answered
            from_database, to_database = await asyncio.open_connection("127.0.0.1", postgres.port)
            kept.append(to_database)
            await asyncio.gather(copy(reader, to_database), copy(from_database, writer))

    (tmp_path / "password").write_text(postgres.password)
    asker = Asker(1)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"postgresql://reader@127.0.0.1:{server.sockets[0].getsockname()[1]}/registry"
        slow = dataset("SELECT pg_sleep(60) AS a", format="postgresql", url=url, password_file=tmp_path / "password")
        asking_it = asyncio.create_task(asker.answer(slow, ASKED, tmp_path / "data" / "a.parquet"))
        await asked.wait()
        asking_it.cancel()
        try:
            async with asyncio.timeout(10):
                assert isinstance((await asyncio.gather(asking_it, return_exceptions=True))[0], asyncio.CancelledError)
        finally:
            # What is not told to stop ends at last, and its thread with it.
            postgres.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'vantage'")
            await asyncio.to_thread(asker._threads.shutdown)
            for each in kept:
                each.close()
