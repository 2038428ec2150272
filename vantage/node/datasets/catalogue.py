"""The catalogue: what a node tells its server of its datasets, no more than each one's ``share`` says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from threading import Event

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.errors import VantageError
from vantage.node.datasets.asking import Asker
from vantage.node.datasets.contents import Table
from vantage.node.datasets.files import table_of
from vantage.node.datasets.sections import DatasetSection, ParameterSection

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""For one dataset; one that takes longer is shared by its name and queries."""
MAX_QUERIES = 100
MAX_PARAMETERS = 50


async def tables_of(asker: Asker, dataset: DatasetSection, *, count: bool) -> tuple[Table, ...]:
    """The tables of a dataset; none where only its queries say what it answers (SPARQL).

    Raises:
        VantageError: DATASET_UNREADABLE, DATASET_UNAVAILABLE, or something is not installed.
    """
    if dataset.format == "sparql":
        return ()
    if dataset.is_service:
        return await asker.tables(dataset, count=count)
    stopped = Event()
    try:
        return (await asyncio.to_thread(table_of, dataset, stopped, count=count),)
    finally:
        stopped.set()


async def catalogue(asker: Asker, datasets: Iterable[DatasetSection]) -> list[pb.DatasetInfo]:
    """What the server is told; a dataset that cannot be looked into is told without its tables."""
    return list(await asyncio.gather(*(_shared(asker, each) for each in datasets if each.share != "none")))


async def _shared(asker: Asker, dataset: DatasetSection) -> pb.DatasetInfo:
    info = pb.DatasetInfo(
        name=dataset.name,
        format=dataset.format,
        description=dataset.description,
        access=dataset.access if dataset.is_service else "file",
    )
    if dataset.share == "name":
        return info
    # Which queries there are is part of the schema: nobody can ask without.
    info.queries.extend(
        pb.DatasetQuery(
            name=name,
            description=query.description[:500],
            parameters=[_parameter(key, each) for key, each in list(query.parameters.items())[:MAX_PARAMETERS]],
        )
        for name, query in list(dataset.queries.items())[:MAX_QUERIES]
    )
    if dataset.is_service and dataset.access == "query":
        return info  # the tables behind its queries are nobody's business
    # Counting may take longer than there is time; the columns are told all the same.
    for count in (True, False) if dataset.share == "counts" else (False,):
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                tables = await tables_of(asker, dataset, count=count)
        except (VantageError, TimeoutError) as problem:
            log.warning(
                "dataset not looked into",
                extra={"dataset": dataset.name, "count": count, "problem": type(problem).__name__},
            )
            continue
        info.tables.extend(_table(each, count=count) for each in tables)
        break
    return info


def _table(table: Table, *, count: bool) -> pb.DatasetTable:
    told = pb.DatasetTable(
        name=table.name, columns=[pb.DatasetColumn(name=name, type=kind) for name, kind in table.columns]
    )
    if count and table.rows is not None:
        told.row_count = table.rows
    return told


def _parameter(name: str, section: ParameterSection) -> pb.QueryParameter:
    return pb.QueryParameter(
        name=name,
        type=section.type,
        description=section.description[:500],
        minimum="" if section.minimum is None else str(section.minimum),
        maximum="" if section.maximum is None else str(section.maximum),
        values=section.values or (),
        max_length=section.max_length or 0,
        required=section.default is None,
    )
