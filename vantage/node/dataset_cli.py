"""``vantage node dataset``: what is in a node's datasets, and what the server is told of it."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from vantage.node.config import NodeConfig
    from vantage.node.datasets.sections import DatasetSection

T = TypeVar("T")

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("node.yaml"),
    show_default=True,
    help="The node's configuration.",
)
_SHARED = {
    "none": "not told",
    "name": "name, format, description",
    "schema": "these, tables with columns, queries",
    "counts": "these, tables with columns and rows, queries",
}


@click.group()
def dataset() -> None:
    """What is in this node's datasets, and what the server is told of it."""


@dataset.command("list", epilog="\b\nExample:\n  vantage node dataset list --config /srv/node/node.yaml")
@_CONFIG
def list_datasets(config_path: Path) -> None:
    """List the datasets of a configuration, and how much of each is shared."""
    loaded = _load(config_path)
    if not loaded.datasets:
        click.echo("no datasets: add them to the configuration", err=True)
    for each in loaded.datasets:
        how = each.access if each.is_service else "file"
        click.echo(f"{each.name}  {each.format}  {how}  the server is told: {_SHARED[each.share]}")


@dataset.command("inspect", epilog="\b\nExample:\n  vantage node dataset inspect registry")
@click.argument("name")
@_CONFIG
def inspect_dataset(name: str, config_path: Path) -> None:
    """Look into a dataset: columns, rows, and for a database what its role may do. Exit status 1: it is not usable."""
    loaded = _load(config_path)
    found = loaded.dataset(name)
    if found is None:
        known = ", ".join(each.name for each in loaded.datasets) or "none"
        raise click.UsageError(f"there is no dataset {name!r}; there are: {known}")
    from vantage.common.errors import VantageError

    try:
        usable = _run(_inspect(found))
    except VantageError as problem:
        cause = f": {problem.__cause__}" if problem.__cause__ is not None else ""
        raise click.ClickException(f"{problem.message}{cause}") from None
    if not usable:
        sys.exit(1)


async def _inspect(found: DatasetSection) -> bool:
    from vantage.node.datasets.asking import Asker, problems_of
    from vantage.node.datasets.catalogue import tables_of

    asker = Asker(1)
    usable = True
    try:
        click.echo(f"{found.name} ({found.format})" + (f": {found.description}" if found.description else ""))
        click.echo(f"the server is told: {_SHARED[found.share]}")
        for table in await tables_of(asker, found, count=True):
            rows = "" if table.rows is None else f"  {table.rows} {'files' if found.format == 'folder' else 'rows'}"
            click.echo(f"{table.name or 'content'}{rows}")
            for column, kind in table.columns:
                click.echo(f"  {column}  {kind}")
        if found.is_service and found.format != "sparql":
            rights = await asker.rights(found)
            for each in rights.writes:
                click.echo(f"the role is no reader: {each}")
            for each in rights.advice:
                click.echo(f"advice: {each}")
            usable = not (rights.writes and found.access == "connection")
            for problem in problems_of([found]):
                click.echo(f"wrong: {problem}")
                usable = False
    finally:
        asker.close()
    return usable


def _run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    return asyncio.run(work)


def _load(path: Path) -> NodeConfig:
    from vantage.common.errors import VantageError
    from vantage.node import config

    try:
        return config.load(path)
    except VantageError as problem:
        click.echo(f"Error: {problem.message}", err=True)
        sys.exit(2)
