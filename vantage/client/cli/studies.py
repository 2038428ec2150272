"""``vantage study``."""

from __future__ import annotations

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import add_delete, add_get, add_list, shorts
from vantage.client.cli.output import Column

COLUMNS = (
    Column("NAME", "name"),
    Column("TITLE", "display_name"),
    Column("ORGANIZATIONS", shorts("organizations")),
    Column("CREATED", "create_time"),
)


@click.group()
def study() -> None:
    """Named subsets of a collaboration's members."""


add_get(study, "studies", COLUMNS, "lungs/pilot")
add_list(
    study,
    "studies",
    COLUMNS,
    click.option("--collaboration", metavar="NAME", help="Only those of this collaboration."),
)
add_delete(study, "studies", "lungs/pilot", "It must have no active tasks.")


@command(study, "create", "vantage study create lungs/pilot --organization clara --organization hilda")
@click.argument("name")
@click.option("--organization", "organizations", multiple=True, required=True, metavar="NAME", help="Part; repeatable.")
@click.option("--title", default="", help="Name for people.")
def create(call: Call, name: str, organizations: tuple[str, ...], title: str) -> None:
    """Create a study of members of a collaboration."""
    with call.client() as client:
        made = client.studies.create(name, organizations, display_name=title)
    call.output.done(f"created {made.name}", made)


@command(study, "update", "vantage study update lungs/pilot --organization clara --organization beatrix")
@click.argument("name")
@click.option("--organization", "organizations", multiple=True, metavar="NAME", help="All of them; repeatable.")
@click.option("--title", help="Name for people.")
@click.option("--etag", default="", help="Version that you saw; the change fails when there is a newer one.")
def update(call: Call, name: str, organizations: tuple[str, ...], title: str | None, etag: str) -> None:
    """Change a study."""
    with call.client() as client:
        changed = client.studies.update(name, title, organizations or None, etag)
    call.output.done(f"changed {changed.name}", changed)
