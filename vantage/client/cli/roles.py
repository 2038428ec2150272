"""``vantage role``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import add_delete, add_get, add_list
from vantage.client.cli.output import Column

if TYPE_CHECKING:
    from vantage.client import Role


def _permissions(item: Role) -> str:
    lines: dict[tuple[str, str], list[str]] = {}
    for each in item.permissions:
        lines.setdefault((each.resource.lower(), each.scope.lower()), []).append(each.operation.lower())
    return "\n".join(
        f"{resource}: {', '.join(operations)} ({scope})" for (resource, scope), operations in lines.items()
    )


COLUMNS = (
    Column("NAME", "name"),
    Column("DESCRIPTION", "description"),
    Column("PERMISSIONS", _permissions, wide=True),
)


@click.group()
def role() -> None:
    """Roles and what they permit."""


add_list(role, "roles", COLUMNS)


add_get(role, "roles", COLUMNS, "researcher")
add_delete(role, "roles", "clara/helpdesk", "Nobody may hold it.")

_PERMISSION = click.option(
    "--permission",
    "permissions",
    multiple=True,
    metavar="RESOURCE:OPERATION:SCOPE",
    help="As in task:view:organization; repeatable.",
)


@command(role, "create", "vantage role create helpdesk --organization clara --permission user:view:organization")
@click.argument("name")
@click.option("--organization", default="", metavar="NAME", help="Whose users may hold it; without it, of the server.")
@_PERMISSION
@click.option("--description", default="", help="For people.")
def create(call: Call, name: str, organization: str, permissions: tuple[str, ...], description: str) -> None:
    """Create a role. It can contain only what you may do yourself."""
    from vantage.client.network import parse_permission

    with call.client() as client:
        made = client.roles.create(name, map(parse_permission, permissions), organization, description)
    call.output.done(f"created {made.name}", made)


@command(role, "update", "vantage role update clara/helpdesk --permission user:view:organization")
@click.argument("name")
@_PERMISSION
@click.option("--description", help="For people.")
@click.option("--etag", default="", help="Version that you saw; the change fails when there is a newer one.")
def update(call: Call, name: str, permissions: tuple[str, ...], description: str | None, etag: str) -> None:
    """Change a role; whoever holds it has the new permissions at once."""
    from vantage.client.network import parse_permission

    with call.client() as client:
        wanted = [parse_permission(each) for each in permissions]
        changed = client.roles.update(name, description, wanted or None, etag)
    call.output.done(f"changed {changed.name}", changed)
