"""What most nouns have alike: get, list and delete over a collection of the client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.output import Column

if TYPE_CHECKING:
    from vantage.client import Client

Function = Callable[..., None]


def short(name: str) -> str:
    """The last part of a resource name, which people type."""
    return name.rsplit("/", 1)[-1]


def shorts(attribute: str) -> Callable[[Any], list[str]]:
    """The value of a column that holds several names."""
    return lambda item: [short(each) for each in getattr(item, attribute)]


def one(attribute: str) -> Callable[[Any], str]:
    """The value of a column that holds a name."""
    return lambda item: short(getattr(item, attribute))


def _collection(client: Client, collection: str) -> Any:
    return getattr(client, collection)


def add_get(group: click.Group, collection: str, columns: Sequence[Column], example: str) -> None:
    """Add the command that shows one."""
    noun = group.name

    @command(group, "get", f"vantage {noun} get {example}")
    @click.argument("name")
    def get(call: Call, name: str) -> None:
        with call.client() as client:
            call.output.item(_collection(client, collection).get(name), columns)

    get.help = f"Show one {noun}."


def add_list(
    group: click.Group,
    collection: str,
    columns: Sequence[Column],
    *filters: Callable[[Function], Function],
) -> None:
    """Add the command that lists those that the caller may see.

    Args:
        group: the noun.
        collection: attribute of the client.
        columns: of the table.
        filters: click options, each named as the argument of the collection's ``list``.
    """

    def list_items(call: Call, limit: int | None, **given: Any) -> None:
        import itertools

        chosen = {key: value for key, value in given.items() if value not in (None, ())}
        with call.client() as client:
            items = itertools.islice(_collection(client, collection).list(**chosen), limit)
            call.output.table(items, columns, none=f"no {collection} that you may see")

    function: Function = click.option("--limit", type=click.IntRange(1), help="Stop after this many.")(list_items)
    for each in reversed(filters):
        function = each(function)
    declared = command(group, "list", f"vantage {group.name} list")(function)
    declared.help = f"List the {collection} that you may see."


def add_delete(group: click.Group, collection: str, example: str, consequence: str = "") -> None:
    """Add the command that deletes one, after a question."""
    noun = group.name

    @command(group, "delete", f"vantage {noun} delete {example}", f"vantage {noun} delete {example} --yes")
    @click.argument("name")
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    def delete(call: Call, name: str, yes: bool) -> None:
        terminal.confirm(f"Delete the {noun} {name}?", yes=yes)
        with call.client() as client:
            _collection(client, collection).delete(name)
        call.output.done(f"deleted {name}", {"deleted": name})

    delete.help = f"Delete one {noun}. {consequence}".rstrip()
