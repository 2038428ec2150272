"""``vantage user``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vantage.client.cli import terminal
from vantage.client.cli.certificates import issue_user
from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import add_delete, add_get, add_list, one, shorts
from vantage.client.cli.output import Column, text

if TYPE_CHECKING:
    from vantage.client import Credentials

COLUMNS = (
    Column("NAME", "name"),
    Column("ORGANIZATION", one("organization")),
    Column("ROLES", shorts("roles")),
    Column("SERVICE ACCOUNT", "service_account"),
    Column("TITLE", "display_name"),
    Column("CREATED", "create_time"),
)
_SHOWN = 10
CREDENTIALS = (
    Column("NAME", one("user")),
    Column("PASSWORD", "has_password"),
    Column("ONE-TIME CODES", "one_time_codes"),
    Column("RECOVERY CODES", "recovery_codes_left"),
    Column("IDENTITIES", lambda item: [f"{each.issuer} {each.subject}" for each in item.identities]),
    Column("SESSIONS", lambda item: _sessions(item)),
)


def _sessions(item: Credentials) -> str:
    lines = [f"{text(each.created)} {each.method} from {each.peer}" for each in item.sessions[:_SHOWN]]
    if len(item.sessions) > _SHOWN:
        lines.append(f"and {len(item.sessions) - _SHOWN} more")
    return "\n".join(lines)


@click.group()
def user() -> None:
    """Users of organizations."""


add_get(user, "users", COLUMNS, "alice")
add_list(
    user, "users", COLUMNS, click.option("--organization", metavar="NAME", help="Only those of this organization.")
)
user.add_command(issue_user)
add_delete(user, "users", "alice", "Their sessions end.")


@command(
    user,
    "create",
    "vantage user create alice --organization clara --role researcher",
    "pass show alice | vantage user create alice --organization clara --role researcher --password-stdin",
    "vantage user create alice --organization clara --role researcher --invite",
    "vantage user create importer --organization clara --role researcher --service-account",
)
@click.argument("name")
@click.option("--organization", default="", metavar="NAME", help="Theirs; without it, a user of the server itself.")
@click.option("--role", "roles", multiple=True, required=True, metavar="NAME", help="Role; repeatable.")
@click.option("--title", default="", help="Name for people.")
@click.option("--password-stdin", is_flag=True, help="Read the password, at least 12 characters, from stdin.")
@click.option(
    "--invite", is_flag=True, help="Choose no password: print a token with which they set theirs, within three days."
)
@click.option("--service-account", is_flag=True, help="A program: it has a certified key and no password.")
def create(
    call: Call,
    name: str,
    organization: str,
    roles: tuple[str, ...],
    title: str,
    password_stdin: bool,
    invite: bool,
    service_account: bool,
) -> None:
    """Create a user. You can give only what you may do yourself."""
    if invite and (password_stdin or service_account):
        raise click.UsageError("--invite goes with neither a password nor a service account")
    if invite:
        with call.client() as client:
            invited = client.users.invite(name, organization, list(roles), title)
        document = {"user": invited.user, "reset_token": invited.reset_token}
        call.output.done(
            f"created {invited.user.name}; 'vantage password reset' asks for: {invited.reset_token}", document
        )
        return
    if service_account:
        if password_stdin or not organization:
            raise click.UsageError("a service account has an --organization and no password")
        with call.client() as client:
            made = client.users.create_service_account(name, organization, list(roles), title)
        call.output.done(f"created {made.name}", made)
        return
    password = terminal.secret(
        f"Password for {name}", from_stdin=password_stdin, option="--password-stdin", confirm=True
    )
    with call.client() as client:
        made = client.users.create(
            name, organization=organization, roles=list(roles), display_name=title, password=password
        )
    call.output.done(f"created {made.name}", made)


@command(user, "credentials", "vantage user credentials alice")
@click.argument("name")
def credentials(call: Call, name: str) -> None:
    """Show how a user can log in, and their sessions."""
    with call.client() as client:
        call.output.item(client.users.credentials(name), CREDENTIALS)


@command(user, "reset-password", "vantage user reset-password alice")
@click.argument("name")
def reset_password(call: Call, name: str) -> None:
    """Print a token with which a user sets a password, once, within three days.

    Hand it over on a way that you trust: 'vantage password reset' asks for it.
    """
    with call.client() as client:
        token = client.users.issue_password_reset(name)
    call.output.done(token, {"reset_token": token})


@command(user, "revoke-sessions", "vantage user revoke-sessions alice")
@click.argument("name")
def revoke_sessions(call: Call, name: str) -> None:
    """End all sessions of a user at once."""
    with call.client() as client:
        ended = client.users.revoke_sessions(name)
    call.output.done(f"sessions ended: {ended}", {"ended_sessions": ended})


@command(user, "remove-codes", "vantage user remove-codes alice")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_codes(call: Call, name: str, yes: bool) -> None:
    """Remove the one-time codes of a user who lost phone and recovery codes; their sessions end."""
    terminal.confirm(f"From now on the password alone lets {name} in. Go on?", yes=yes)
    with call.client() as client:
        ended = client.users.remove_one_time_codes(name)
    call.output.done(f"removed; sessions ended: {ended}", {"ended_sessions": ended})


@command(user, "link-identity", "vantage user link-identity alice SUBJECT")
@click.argument("name")
@click.argument("subject")
def link_identity(call: Call, name: str, subject: str) -> None:
    """Let a user log in with an identity at the server's identity provider."""
    with call.client() as client:
        client.users.link_identity(name, subject)
    call.output.done(f"linked to {name}", {"user": name, "subject": subject})


@command(user, "unlink-identity", "vantage user unlink-identity alice https://login.example.org 248289761001")
@click.argument("name")
@click.argument("issuer")
@click.argument("subject")
def unlink_identity(call: Call, name: str, issuer: str, subject: str) -> None:
    """Let a user log in with an identity no more; their sessions that began with one end."""
    with call.client() as client:
        ended = client.users.unlink_identity(name, issuer, subject)
    call.output.done(f"unlinked; sessions ended: {ended}", {"ended_sessions": ended})


@command(user, "update", "vantage user update alice --role researcher --role viewer")
@click.argument("name")
@click.option("--role", "roles", multiple=True, metavar="NAME", help="All of theirs; repeatable.")
@click.option("--title", help="Name for people.")
@click.option("--etag", default="", help="Version that you saw; the change fails when there is a newer one.")
def update(call: Call, name: str, roles: tuple[str, ...], title: str | None, etag: str) -> None:
    """Change a user. You can give and take only what you may do yourself."""
    with call.client() as client:
        changed = client.users.update(name, title, roles or None, etag)
    call.output.done(f"changed {changed.name}", changed)
