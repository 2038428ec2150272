"""``vantage collaboration``."""

from __future__ import annotations

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import add_delete, add_get, add_list, short, shorts
from vantage.client.cli.output import Column

COLUMNS = (
    Column("NAME", "name"),
    Column("TITLE", "display_name"),
    Column("MEMBERS", shorts("organizations")),
    Column("CREATED", "create_time"),
)


@click.group()
def collaboration() -> None:
    """Organizations that agreed to compute together."""


add_get(collaboration, "collaborations", COLUMNS, "trial")
add_list(collaboration, "collaborations", COLUMNS)
add_delete(collaboration, "collaborations", "trial", "It must have no active tasks.")


@command(collaboration, "create", "vantage collaboration create trial --organization clara --organization hilda")
@click.argument("name")
@click.option("--organization", "organizations", multiple=True, metavar="NAME", help="Member; repeatable.")
@click.option("--title", default="", help="Name for people.")
def create(call: Call, name: str, organizations: tuple[str, ...], title: str) -> None:
    """Create a collaboration."""
    with call.client() as client:
        made = client.collaborations.create(name, organizations=list(organizations), display_name=title)
    call.output.done(f"created {made.name}", made)


@command(collaboration, "add-member", "vantage collaboration add-member trial beatrix")
@click.argument("name")
@click.argument("organization")
def add_member(call: Call, name: str, organization: str) -> None:
    """Add a member; harmless when it is one."""
    with call.client() as client:
        changed = client.collaborations.add_member(name, organization)
    call.output.done(f"{changed.name} has the members {_members(changed.organizations)}", changed)


@command(collaboration, "remove-member", "vantage collaboration remove-member trial beatrix")
@click.argument("name")
@click.argument("organization")
def remove_member(call: Call, name: str, organization: str) -> None:
    """Remove a member; what waits for it is not handed out any more."""
    with call.client() as client:
        changed = client.collaborations.remove_member(name, organization)
    call.output.done(f"{changed.name} has the members {_members(changed.organizations)}", changed)


def _members(names: tuple[str, ...]) -> str:
    return ", ".join(map(short, names)) or "none"
