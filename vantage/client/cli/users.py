"""``vantage user``."""

from __future__ import annotations

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import add_delete, add_get, add_list, one, shorts
from vantage.client.cli.output import Column

COLUMNS = (
    Column("NAME", "name"),
    Column("ORGANIZATION", one("organization")),
    Column("ROLES", shorts("roles")),
    Column("TITLE", "display_name"),
    Column("CREATED", "create_time"),
)


@click.group()
def user() -> None:
    """Users of organizations."""


add_get(user, "users", COLUMNS, "alice")
add_list(
    user, "users", COLUMNS, click.option("--organization", metavar="NAME", help="Only those of this organization.")
)
add_delete(user, "users", "alice", "Their sessions end.")


@command(
    user,
    "create",
    "vantage user create alice --organization clara --role researcher",
    "pass show alice | vantage user create alice --organization clara --role researcher --password-stdin",
)
@click.argument("name")
@click.option("--organization", default="", metavar="NAME", help="Theirs; without it, a user of the server itself.")
@click.option("--role", "roles", multiple=True, required=True, metavar="NAME", help="Role; repeatable.")
@click.option("--title", default="", help="Name for people.")
@click.option("--password-stdin", is_flag=True, help="Read the password, at least 12 characters, from stdin.")
def create(call: Call, name: str, organization: str, roles: tuple[str, ...], title: str, password_stdin: bool) -> None:
    """Create a user. You can give only what you may do yourself."""
    password = terminal.secret(
        f"Password for {name}", from_stdin=password_stdin, option="--password-stdin", confirm=True
    )
    with call.client() as client:
        made = client.users.create(
            name, organization=organization, roles=list(roles), display_name=title, password=password
        )
    call.output.done(f"created {made.name}", made)
