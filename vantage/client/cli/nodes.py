"""The part of ``vantage node`` that talks to the server; the data station's part is in ``vantage.node.cli``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import add_delete, add_get, add_list, shorts
from vantage.client.cli.output import Column

if TYPE_CHECKING:
    from vantage.client import Node


def _datasets(item: Node) -> list[str]:
    return [f"{each.name} ({each.format})" for each in item.datasets]


COLUMNS = (
    Column("NAME", "name"),
    Column("ONLINE", "online"),
    Column("COLLABORATIONS", shorts("collaborations")),
    Column("ACTIVE", shorts("active_collaborations"), wide=True),
    Column("DATASETS", _datasets),
    Column("LAST SEEN", "last_seen_time"),
    Column("EXECUTOR", "executor", wide=True),
    Column("TRANSPORT", "transport", wide=True),
    Column("VERSION", "version", wide=True),
    Column("CREATED", "create_time", wide=True),
)


@click.group()
def node() -> None:
    """Holds the commands that ``vantage node`` takes over."""


add_get(node, "nodes", COLUMNS, "clara/clara-1")
add_list(
    node,
    "nodes",
    COLUMNS,
    click.option("--organization", metavar="NAME", help="Only those of this organization."),
    click.option("--collaboration", metavar="NAME", help="Only those that serve this collaboration."),
)
add_delete(node, "nodes", "clara/clara-1", "Its connection ends.")


@command(node, "create", "vantage node create clara-1 --organization clara --collaboration trial")
@click.argument("name")
@click.option("--organization", required=True, metavar="NAME", help="Organization that it belongs to.")
@click.option(
    "--collaboration", "collaborations", multiple=True, metavar="NAME", help="Collaboration that it serves; repeatable."
)
def create(call: Call, name: str, organization: str, collaborations: tuple[str, ...]) -> None:
    """Admit a node. It proves who it is with a certificate of its organization ('vantage node issue')."""
    with call.client() as client:
        made = client.nodes.create(name, organization=organization, collaborations=list(collaborations))
    call.output.done(f"created {made.name}", made)


@command(node, "update", "vantage node update clara/clara-1 --collaboration trial --collaboration lungs")
@click.argument("name")
@click.option("--collaboration", "collaborations", multiple=True, metavar="NAME", help="All of them; repeatable.")
@click.option("--none", is_flag=True, help="Serve no collaboration.")
@click.option("--etag", default="", help="Version that you saw; the change fails when there is a newer one.")
def update(call: Call, name: str, collaborations: tuple[str, ...], none: bool, etag: str) -> None:
    """Change which collaborations a node serves; it learns of it at once."""
    if none == bool(collaborations):
        raise click.UsageError("give either --collaboration or --none")
    with call.client() as client:
        changed = client.nodes.update(name, collaborations, etag)
    call.output.done(f"changed {changed.name}", changed)


create_node, get_node, list_nodes, update_node, delete_node = (
    node.commands[verb] for verb in ("create", "get", "list", "update", "delete")
)
