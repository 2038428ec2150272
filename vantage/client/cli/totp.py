"""``vantage totp``."""

from __future__ import annotations

import sys

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command

_STDIN = click.option("--stdin", "from_stdin", is_flag=True, help="Read password and code from stdin, a line each.")


@click.group()
def totp() -> None:
    """One-time codes of an app at each log-in."""


@command(totp, "enrol", "vantage totp enrol")
@_STDIN
def enrol(call: Call, from_stdin: bool) -> None:
    """Ask for a code of your app at each log-in from now on.

    Shows a QR code for the app, asks for the code that the app then shows, and prints ten recovery codes: each replaces
    a code once. Keep them where you would keep a spare key. Your sessions on other machines end.
    """
    password = terminal.secret("Password", from_stdin=from_stdin, option="--stdin")
    with call.client() as client:
        begun = client.auth.begin_one_time_codes(password)
        if sys.stderr.isatty():
            import segno

            segno.make(begun.uri).terminal(out=sys.stderr, compact=True)
        click.echo(f"secret: {begun.secret}\naddress: {begun.uri}", err=True)
        code = terminal.secret("Code that the app shows", from_stdin=from_stdin, option="--stdin")
        codes = client.auth.confirm_one_time_codes(code)
    _show(call, codes)


@command(totp, "disable", "vantage totp disable")
@_STDIN
def disable(call: Call, from_stdin: bool) -> None:
    """Ask for codes no more."""
    password = terminal.secret("Password", from_stdin=from_stdin, option="--stdin")
    code = terminal.secret("Code, or recovery code", from_stdin=from_stdin, option="--stdin")
    with call.client() as client:
        client.auth.disable_one_time_codes(password, code)
    call.output.done("log-ins need no code any more", {"one_time_codes": False})


@command(totp, "recovery-codes", "vantage totp recovery-codes")
@_STDIN
def recovery_codes(call: Call, from_stdin: bool) -> None:
    """Make new recovery codes; those so far work no more."""
    password = terminal.secret("Password", from_stdin=from_stdin, option="--stdin")
    code = terminal.secret("Code, or recovery code", from_stdin=from_stdin, option="--stdin")
    with call.client() as client:
        codes = client.auth.renew_recovery_codes(password, code)
    _show(call, codes)


def _show(call: Call, codes: list[str]) -> None:
    call.output.done(
        "recovery codes, shown this once:\n" + "\n".join(f"  {code}" for code in codes), {"recovery_codes": codes}
    )
