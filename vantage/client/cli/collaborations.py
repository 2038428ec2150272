"""``vantage collaboration``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import add_delete, add_get, add_list, one, short
from vantage.client.cli.output import Column, text

if TYPE_CHECKING:
    from vantage.client import Member


def _standing(members: tuple[Member, ...]) -> list[str]:
    """Members by name; those that do not take part with why."""
    return [
        short(each.organization) if each.state.name == "ACTIVE" else f"{short(each.organization)} ({text(each.state)})"
        for each in members
    ]


COLUMNS = (
    Column("NAME", "name"),
    Column("TITLE", "display_name"),
    Column("MEMBERS", lambda item: _standing(item.members)),
    Column("CREATED", "create_time"),
)
_INVITATIONS = (
    Column("COLLABORATION", one("collaboration")),
    Column("ORGANIZATION", one("organization")),
    Column("TITLE", "display_name"),
    Column("OTHERS", lambda item: _standing(item.members)),
    Column("INVITED BY", one("invited_by")),
    Column("SINCE", "invite_time"),
)


@click.group()
def collaboration() -> None:
    """Organizations that agreed to compute together."""


add_get(collaboration, "collaborations", COLUMNS, "trial")
add_list(collaboration, "collaborations", COLUMNS)
add_delete(collaboration, "collaborations", "trial", "It must have no active tasks.")


@command(collaboration, "update", "vantage collaboration update trial --title 'Lung cancer'")
@click.argument("name")
@click.option("--title", required=True, help="Name for people.")
@click.option("--etag", default="", help="Version that you saw; the change fails when there is a newer one.")
def update(call: Call, name: str, title: str, etag: str) -> None:
    """Change a collaboration."""
    with call.client() as client:
        changed = client.collaborations.update(name, title, etag)
    call.output.done(f"changed {changed.name}", changed)


@command(collaboration, "create", "vantage collaboration create trial --organization clara --organization hilda")
@click.argument("name")
@click.option("--organization", "organizations", multiple=True, metavar="NAME", help="Whom to invite; repeatable.")
@click.option("--title", default="", help="Name for people.")
def create(call: Call, name: str, organizations: tuple[str, ...], title: str) -> None:
    """Create a collaboration and invite organizations.

    Each accepts for itself, with 'vantage collaboration accept'.
    """
    with call.client() as client:
        made = client.collaborations.create(name, organizations=list(organizations), display_name=title)
    call.output.done(f"created {made.name}", made)


@command(collaboration, "add-member", "vantage collaboration add-member trial beatrix")
@click.argument("name")
@click.argument("organization")
def add_member(call: Call, name: str, organization: str) -> None:
    """Invite an organization.

    Harmless when it is invited or a member. It accepts with 'vantage collaboration accept'.
    """
    with call.client() as client:
        changed = client.collaborations.add_member(name, organization)
    call.output.done(f"{changed.name} has the members {', '.join(_standing(changed.members)) or 'none'}", changed)


@command(collaboration, "remove-member", "vantage collaboration remove-member trial beatrix")
@click.argument("name")
@click.argument("organization")
def remove_member(call: Call, name: str, organization: str) -> None:
    """Take an invitation back, or end a membership.

    Open runs of the organization are cancelled.
    """
    with call.client() as client:
        changed = client.collaborations.remove_member(name, organization)
    call.output.done(f"{changed.name} has the members {', '.join(_standing(changed.members)) or 'none'}", changed)


@command(collaboration, "invitations", "vantage collaboration invitations")
def invitations(call: Call) -> None:
    """List what your organization is invited to."""
    with call.client() as client:
        call.output.table(client.memberships.invitations(), _INVITATIONS, none="no open invitations")


_FOR = click.option("--organization", default="", metavar="NAME", help="That answers; yours without it.")


@command(collaboration, "accept", "vantage collaboration accept trial")
@click.argument("name")
@_FOR
def accept(call: Call, name: str, organization: str) -> None:
    """Accept an invitation for your organization."""
    with call.client() as client:
        member = client.memberships.accept(name, organization)
    call.output.done(_now(member, name), member)


@command(collaboration, "decline", "vantage collaboration decline trial")
@click.argument("name")
@_FOR
def decline(call: Call, name: str, organization: str) -> None:
    """Say no to an invitation."""
    with call.client() as client:
        client.memberships.decline(name, organization)
    call.output.done(f"declined {name}", {"declined": name})


@command(collaboration, "suspend", "vantage collaboration suspend trial")
@click.argument("name")
@_FOR
def suspend(call: Call, name: str, organization: str) -> None:
    """Take no part for a while.

    Your organization is asked nothing new; what runs goes on.
    """
    with call.client() as client:
        member = client.memberships.suspend(name, organization)
    call.output.done(_now(member, name), member)


@command(collaboration, "resume", "vantage collaboration resume trial")
@click.argument("name")
@_FOR
def resume(call: Call, name: str, organization: str) -> None:
    """Take part again."""
    with call.client() as client:
        member = client.memberships.resume(name, organization)
    call.output.done(_now(member, name), member)


@command(collaboration, "leave", "vantage collaboration leave trial", "vantage collaboration leave trial --yes")
@click.argument("name")
@_FOR
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def leave(call: Call, name: str, organization: str, yes: bool) -> None:
    """End your organization's membership.

    Its open runs are cancelled.
    """
    terminal.confirm(f"Leave {name}?", yes=yes)
    with call.client() as client:
        client.memberships.leave(name, organization)
    call.output.done(f"left {name}", {"left": name})


def _now(member: Member, name: str) -> str:
    return f"{member.organization} in {name}: {text(member.state)}"
