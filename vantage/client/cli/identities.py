"""``vantage identity``."""

from __future__ import annotations

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.login import at_provider
from vantage.client.cli.output import Column

COLUMNS = (Column("ISSUER", "issuer"), Column("SUBJECT", "subject"), Column("LINKED", "linked"))


@click.group()
def identity() -> None:
    """Who you are at the server's identity provider."""


@command(identity, "list", "vantage identity list")
def list_identities(call: Call) -> None:
    """List the identities with which you can log in."""
    with call.client() as client:
        found = client.auth.credentials().identities
    call.output.table(found, COLUMNS, none="no identities: 'vantage identity link' adds one")


@command(identity, "link", "vantage identity link")
@click.option("--device", is_flag=True, help="With the browser of another device, as over SSH.")
@click.option("--one-time-code", default="", metavar="CODE", help="Of your app, or a recovery code.")
@click.option("--password-stdin", is_flag=True, help="Read your password from stdin.")
def link(call: Call, device: bool, one_time_code: str, password_stdin: bool) -> None:
    """Log in at the server's identity provider once, so that you can log in with it from now on."""
    with call.client() as client:
        password = ""
        if client.auth.credentials().has_password:
            password = terminal.secret("Password", from_stdin=password_stdin, option="--password-stdin")
        subject = at_provider(
            lambda show, browser: client.auth.link_identity(password, one_time_code, show, browser), device=device
        )
    call.output.done(f"linked {subject}: log in with 'vantage login --provider'", {"subject": subject})


@command(identity, "unlink", "vantage identity unlink https://login.example.org 248289761001")
@click.argument("issuer")
@click.argument("subject")
def unlink(call: Call, issuer: str, subject: str) -> None:
    """Log in with an identity no more. Sessions that began with one end."""
    with call.client() as client:
        ended = client.auth.unlink_identity(issuer, subject)
    call.output.done(f"unlinked; sessions ended: {ended}", {"ended_sessions": ended})
