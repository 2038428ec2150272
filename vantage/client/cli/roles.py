"""``vantage role``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import add_list, short
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


@command(role, "get", "vantage role get researcher")
@click.argument("name")
def get(call: Call, name: str) -> None:
    """Show one role and what it permits."""
    from vantage.common.errors import Reason, error

    with call.client() as client:
        found = next((each for each in client.roles.list() if short(each.name) == short(name)), None)
    if found is None:
        raise error(Reason.NOT_FOUND, f"there is no role {name}: 'vantage role list' shows all")
    call.output.item(found, COLUMNS)
