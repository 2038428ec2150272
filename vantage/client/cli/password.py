"""``vantage password``."""

from __future__ import annotations

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command


@click.group()
def password() -> None:
    """Change your password."""


@command(
    password,
    "change",
    "vantage password change",
    'printf \'%s\\n%s\\n\' "$OLD" "$NEW" | vantage password change --passwords-stdin',
)
@click.option(
    "--passwords-stdin", is_flag=True, help="Read the password so far and the new one from stdin, a line each."
)
def change(call: Call, passwords_stdin: bool) -> None:
    """Change your password; your sessions on other machines end."""
    current = terminal.secret("Password so far", from_stdin=passwords_stdin, option="--passwords-stdin")
    new = terminal.secret("New password", from_stdin=passwords_stdin, option="--passwords-stdin", confirm=True)
    with call.client() as client:
        ended = client.auth.change_password(current, new)
    call.output.done(f"changed; other sessions ended: {ended}", {"ended_sessions": ended})
