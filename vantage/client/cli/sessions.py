"""``vantage session``."""

from __future__ import annotations

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.output import Column

COLUMNS = (
    Column("ID", "id"),
    Column("BEGAN WITH", "method"),
    Column("FROM", "peer"),
    Column("CREATED", "created"),
    Column("RENEWED", "refreshed"),
    Column("ENDS", "expires"),
    Column("THIS ONE", "current"),
)


@click.group()
def session() -> None:
    """Where you are logged in."""


@command(session, "list", "vantage session list")
def list_sessions(call: Call) -> None:
    """List your sessions, the latest first."""
    with call.client() as client:
        call.output.table(client.auth.sessions(), COLUMNS, none="no sessions")


@command(session, "end", "vantage session end 019abc00-0000-7000-8000-000000000000")
@click.argument("session_id", metavar="ID")
def end(call: Call, session_id: str) -> None:
    """End one of your sessions at once, e.g. one that you do not recognise. All of them: 'vantage logout --all'."""
    with call.client() as client:
        client.auth.end_session(session_id)
    call.output.done(f"ended {session_id}", {"ended": session_id})
