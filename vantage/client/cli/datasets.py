"""``vantage dataset``: what nodes offer to algorithms, as far as their admins share it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.output import Column

if TYPE_CHECKING:
    from vantage.client import Client, Node
    from vantage.client.datasets import Dataset, QueryParameter


@dataclass(frozen=True)
class Offer:
    """A dataset at a node.

    Attributes:
        node: organizations/{organization}/nodes/{node}.
        dataset: what the node says of it.
    """

    node: str
    dataset: Dataset


def _rows(item: Offer) -> int | None:
    """Of the only table; those of several are told with each."""
    return item.dataset.tables[0].row_count if len(item.dataset.tables) == 1 else None


def _tables(item: Offer) -> str:
    return "\n".join(
        (f"{each.name}: " if each.name else "")
        + ", ".join(f"{name} ({kind})" for name, kind in each.columns)
        + (f"; {each.row_count} rows" if each.row_count is not None else "")
        for each in item.dataset.tables
    )


def _queries(item: Offer) -> str:
    lines = []
    for each in item.dataset.queries:
        lines.append(f"{item.dataset.name}:{each.name}" + (f"  {each.description}" if each.description else ""))
        lines += [f"  {one.name}: {_bounds(one)}" for one in each.parameters]
    return "\n".join(lines)


def _bounds(parameter: QueryParameter) -> str:
    bounds = parameter.type
    if parameter.values:
        bounds = f"one of {', '.join(parameter.values)}"
    elif parameter.minimum or parameter.maximum:
        bounds += f" from {parameter.minimum} to {parameter.maximum}"
    elif parameter.max_length:
        bounds += f" of at most {parameter.max_length} characters"
    text = f" ({parameter.description})" if parameter.description else ""
    return f"{bounds}{', required' if parameter.required else ''}{text}"


COLUMNS = (
    Column("NODE", lambda item: item.node.removeprefix("organizations/").replace("/nodes/", "/")),
    Column("DATASET", lambda item: item.dataset.name),
    Column("FORMAT", lambda item: item.dataset.format),
    Column("ACCESS", lambda item: item.dataset.access),
    Column("ROWS", _rows),
    Column("DESCRIPTION", lambda item: item.dataset.description),
    Column("TABLES", _tables, wide=True),
    Column("QUERIES", _queries, wide=True),
)


@click.group()
def dataset() -> None:
    """What nodes offer to algorithms."""


@command(dataset, "list", "vantage dataset list --collaboration trial")
@click.option("--organization", metavar="NAME", help="Only those of this organization.")
@click.option("--collaboration", metavar="NAME", help="Only those of nodes that serve this collaboration.")
@click.option("--limit", type=click.IntRange(1), help="Stop after this many.")
def list_datasets(call: Call, limit: int | None, **filters: str | None) -> None:
    """List the datasets of the nodes that you may see."""
    with call.client() as client:
        chosen = {key: value for key, value in filters.items() if value is not None}
        items = itertools.islice(_offers(client, chosen), limit)
        call.output.table(items, COLUMNS, none="no datasets that you may see")


@command(dataset, "get", "vantage dataset get clara/clara-1 registry")
@click.argument("node")
@click.argument("name")
def get_dataset(call: Call, node: str, name: str) -> None:
    """Show one dataset of a node: its tables and queries, as far as its admin shares them."""
    with call.client() as client:
        found = client.nodes.get(node)
        offers = [each for each in _of(found) if each.dataset.name == name]
        if not offers:
            offered = ", ".join(each.name for each in found.datasets) or "none"
            raise click.ClickException(f"{found.name} offers no dataset {name!r}; it offers {offered}")
        call.output.item(offers[0], COLUMNS)


def _offers(client: Client, filters: dict[str, Any]) -> Iterator[Offer]:
    for node in client.nodes.list(**filters):
        yield from _of(node)


def _of(node: Node) -> Iterator[Offer]:
    return (Offer(node.name, each) for each in node.datasets)
