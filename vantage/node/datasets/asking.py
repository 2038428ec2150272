"""Asks services on behalf of runs; what blocks does so on threads of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vantage.common.errors import Reason, VantageError, error
from vantage.node.datasets.contents import Rights, Table
from vantage.node.datasets.sections import DatasetSection
from vantage.node.datasets.values import wrong_defaults
from vantage.node.door import Question
from vantage.node.threads import to_its_end

if TYPE_CHECKING:
    from vantage.node.datasets.sql import Sql
    from vantage.node.datasets.tables import TableFile

log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""How long a database that is told to stop may take; its thread is left alone then."""
WAIT_SECONDS = 300.0
"""How long a question waits for its turn, which does not count for the time-out of its dataset."""

T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """An answer on disk."""

    rows: int
    size: int


class Asker:
    """Asks the services of a node's datasets.

    Args:
        threads: how many databases are asked at a time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="datasets")

    async def answer(self, dataset: DatasetSection, question: Question, path: Path) -> Written:
        """Write the answer to a question into a new Parquet file.

        Raises:
            VantageError: DATASET_UNAVAILABLE, DATASET_TOO_LARGE, DATASET_UNREADABLE.
            OSError: there is no room.
        """
        query = dataset.queries[question.query]
        if dataset.format == "sparql":
            from vantage.node.datasets import sparql

            content = await sparql.ask(dataset, query, question.values)
            return await to_its_end(_written, dataset, path, lambda file: sparql.write(dataset, content, file))
        return await self._sql(
            dataset, lambda sql: _written(dataset, path, lambda file: sql.ask(query, question.values, file))
        )

    async def rights(self, dataset: DatasetSection) -> Rights:
        """What the role of a database may do beyond reading.

        Raises:
            UnavailableError: DATASET_UNAVAILABLE.
        """
        return await self._sql(dataset, lambda sql: sql.rights())

    async def tables(self, dataset: DatasetSection, *, count: bool) -> tuple[Table, ...]:
        """The tables of a database that its role may read.

        Raises:
            UnavailableError: DATASET_UNAVAILABLE.
        """
        return await self._sql(dataset, lambda sql: sql.tables(count=count))

    def close(self) -> None:
        """Take no more questions."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _sql(self, dataset: DatasetSection, work: Callable[[Sql], T]) -> T:
        sql = _open(dataset)
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def turn() -> T:
            loop.call_soon_threadsafe(begun.set)
            return work(sql)

        asking = self._threads.submit(turn)
        task = asyncio.wrap_future(asking)
        task.add_done_callback(lambda _: begun.set())  # it may end without a turn
        try:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await begun.wait()
            except TimeoutError:
                if asking.cancel():  # else its turn came at this moment
                    raise error(
                        Reason.DATASET_UNAVAILABLE,
                        f"the dataset {dataset.name} was not asked: for {WAIT_SECONDS:g} s the node asked others, and "
                        "it asks only so many at a time: ask again later",
                        dataset=dataset.name,
                    ) from None
            async with asyncio.timeout(dataset.timeout + GRACE_SECONDS):
                return await asyncio.shield(task)
        except (TimeoutError, asyncio.CancelledError) as ended:
            if not asking.cancel():  # it has begun
                await asyncio.to_thread(sql.cancel, GRACE_SECONDS)
                await asyncio.wait({task}, timeout=GRACE_SECONDS)
                if task.done():
                    task.exception()  # it failed because it was told to
                else:
                    log.warning("database goes on although it was told to stop", extra={"dataset": dataset.name})
            if isinstance(ended, asyncio.CancelledError):
                raise
            raise error(
                Reason.DATASET_UNAVAILABLE,
                f"the dataset {dataset.name} took longer than its {dataset.timeout} s: ask for less",
                dataset=dataset.name,
            ) from None


def _written(dataset: DatasetSection, path: Path, fill: Callable[[TableFile], None]) -> Written:
    """Opened, written and closed by one thread: Arrow's writers are for one at a time."""
    from vantage.node.datasets.tables import TableFile

    with TableFile(path, dataset.name, dataset.max_rows, dataset.max_bytes) as file:
        fill(file)
        return Written(file.rows, file.close())


def problems_of(datasets: Iterable[DatasetSection]) -> list[str]:
    """What is wrong with databases as they are written, found out without asking them.

    A driver that is not there, a password that cannot be read, places in a query without a parameter or the reverse, a
    default out of bounds.
    """
    problems = []
    for dataset in datasets:
        for name, query in dataset.queries.items():
            problems += [f"dataset {dataset.name}: the query {name}: {each}" for each in wrong_defaults(query)]
        if dataset.is_service and dataset.format != "sparql":
            try:
                found = _open(dataset).check()
            except VantageError as problem:
                found = [problem.message]
            problems += [f"dataset {dataset.name}: {each}" for each in found]
    return problems


def _open(dataset: DatasetSection) -> Sql:
    try:
        from vantage.node.datasets.sql import Sql
    except ImportError as problem:
        raise error(
            Reason.CONFIGURATION_INVALID,
            f"the dataset {dataset.name} needs {problem.name}, which is not here: pip install 'vantage[datasets]'",
            dataset=dataset.name,
        ) from None
    return Sql(dataset)
