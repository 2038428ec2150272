"""``vantage password``."""

from __future__ import annotations

from pathlib import Path

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import short
from vantage.client.cli.servers import trust_options


@click.group()
def password() -> None:
    """Change your password."""


@command(password, "reset", "vantage password reset --server example.org:7600 --fingerprint sha256:HEX")
@click.option("--server", metavar="HOST:PORT", help="A server that no profile names yet.")
@trust_options
@click.option("--stdin", "from_stdin", is_flag=True, help="Read reset token and new password from stdin, a line each.")
def reset(
    call: Call, server: str | None, fingerprint: str | None, ca: Path | None, insecure: bool, from_stdin: bool
) -> None:
    """Set a password with a token that an admin gave you; all your sessions end. Then log in."""
    from vantage.client import Client
    from vantage.client.cli.login import profile_of

    _name, profile = profile_of(call.profile, server, fingerprint, ca, insecure, None)
    token = terminal.secret("Reset token", from_stdin=from_stdin, option="--stdin")
    new = terminal.secret("New password", from_stdin=from_stdin, option="--stdin", confirm=True)
    with Client.connect(profile.address, fingerprint=profile.fingerprint, ca=profile.ca, tls=profile.tls) as client:
        user = client.auth.reset_password(token, new)
    call.output.done(f"set for {short(user)}: log in now", {"user": user})


@command(
    password,
    "change",
    "vantage password change",
    'printf \'%s\\n%s\\n\' "$OLD" "$NEW" | vantage password change --passwords-stdin',
)
@click.option("--one-time-code", default="", metavar="CODE", help="Of your app, or a recovery code.")
@click.option(
    "--passwords-stdin", is_flag=True, help="Read the password so far and the new one from stdin, a line each."
)
def change(call: Call, one_time_code: str, passwords_stdin: bool) -> None:
    """Change your password; your sessions on other machines end."""
    current = terminal.secret("Password so far", from_stdin=passwords_stdin, option="--passwords-stdin")
    new = terminal.secret("New password", from_stdin=passwords_stdin, option="--passwords-stdin", confirm=True)
    with call.client() as client:
        ended = client.auth.change_password(current, new, one_time_code)
    call.output.done(f"changed; other sessions ended: {ended}", {"ended_sessions": ended})
