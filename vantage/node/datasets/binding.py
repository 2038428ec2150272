"""From the name of a dataset in a task to what a run is given of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vantage.common.errors import Reason, error
from vantage.node.datasets.sections import DatasetSection
from vantage.node.datasets.values import check_values
from vantage.node.door import BoundDataset, Question, ServiceConnection

CONTAINER_DATA = "/data"

Asked = tuple[str, Mapping[str, Any]]
"""Name of a query, and its values."""


def bind(parameter: str, dataset: DatasetSection, asked: Asked | None, directory: Path, *, boxed: bool) -> BoundDataset:
    """Bind a parameter of a function to a dataset.

    Args:
        parameter: of the function.
        dataset: that the task names.
        asked: what is asked of it.
        directory: of the run at the node, which need not exist yet.
        boxed: whether the run sees its datasets below ``CONTAINER_DATA`` and not where they are.

    Raises:
        RefusedError: DATASET_ACCESS_REFUSED, DATASET_QUERY_INVALID.
    """
    if asked is not None and not (dataset.is_service and dataset.access == "query"):
        raise error(
            Reason.DATASET_ACCESS_REFUSED,
            f"the dataset {dataset.name} answers no queries: bind it by its name alone",
            dataset=dataset.name,
        )
    if dataset.path is not None:
        path = seen(parameter, dataset.path, boxed=boxed)
        return BoundDataset(parameter, dataset.name, dataset.format, dataset.path, path, dataset.sheet or "")
    folder = directory / "data" / parameter
    if dataset.access == "connection":
        omop = dataset.format == "omop"
        leads = ServiceConnection(
            dataset.parts.scheme.partition("+")[0],
            dataset.parts.path.lstrip("/"),
            dataset.cdm_schema if omop else "",
            dataset.cdm_version if omop else "",
        )
        shown = f"{CONTAINER_DATA}/{parameter}" if boxed else str(folder)
        return BoundDataset(parameter, dataset.name, dataset.format, folder, shown, connection=leads)
    question = ask(dataset, asked)
    source = folder / f"{dataset.name}.parquet"
    path = seen(parameter, source, boxed=boxed)
    return BoundDataset(parameter, dataset.name, "parquet", source, path, question=question)


def seen(parameter: str, source: Path, *, boxed: bool) -> str:
    """Path of a file or folder as the run sees it."""
    # Two parameters may be bound to the same file: each has a directory of its own.
    return f"{CONTAINER_DATA}/{parameter}/{source.name}" if boxed else str(source)


def ask(dataset: DatasetSection, asked: Asked | None) -> Question:
    """The question to a dataset, checked. Without one, its only query with what it takes when nothing is said.

    Raises:
        RefusedError: DATASET_QUERY_INVALID.
    """
    known = ", ".join(dataset.queries)
    if asked is None and len(dataset.queries) > 1:
        raise error(
            Reason.DATASET_QUERY_INVALID,
            f"the dataset {dataset.name} answers queries: say which, as {dataset.name}:QUERY; it has {known}",
            dataset=dataset.name,
        )
    name, values = asked if asked is not None else (next(iter(dataset.queries)), {})
    query = dataset.queries.get(name)
    if query is None:
        raise error(
            Reason.DATASET_QUERY_INVALID,
            f"the dataset {dataset.name} has no query {name[:100]!r}; it has {known}",
            dataset=dataset.name,
        )
    return Question(name, check_values(name, query, values))
