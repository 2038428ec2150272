"""``vantage login``, ``bootstrap``, ``logout`` and ``whoami``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import short, shorts
from vantage.client.cli.output import Column
from vantage.client.cli.servers import DEFAULT, checked, recognised, trust_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from vantage.client import Client, DeviceCode
    from vantage.client.profiles import Profile

_SERVER = click.option("--server", metavar="HOST:PORT", help="A server that no profile names yet: makes the profile.")
_USERNAME = click.option("--username", metavar="NAME", help="Login name; that of the profile without it.")
_PASSWORD = click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")


def profile_of(
    name: str | None,
    server: str | None,
    fingerprint: str | None,
    ca: Path | None,
    insecure: bool,
    username: str | None,
) -> tuple[str, Profile]:
    """The profile to log in with: a stored one, or one for a server that is new."""
    from dataclasses import replace

    from vantage.client import profiles

    known = profiles.load()
    if server is None:
        if fingerprint is not None or ca is not None or insecure:
            raise click.UsageError("--fingerprint, --ca and --insecure go with --server")
        chosen, profile = known.get(name)
        return chosen, replace(profile, username=username) if username else profile
    chosen = name or DEFAULT
    profile = checked(profiles.Profile(server, fingerprint, ca, not insecure, username or ""))
    stored = known.profiles.get(chosen)
    if stored is not None and stored.address != profile.address:
        raise click.UsageError(
            f"the profile {chosen} is for the server {stored.address}: choose a name for this one with --profile, or "
            f"run 'vantage profile remove {chosen}' first"
        )
    return chosen, recognised(profile)


def _username(profile: Profile) -> str:
    """Who logs in: as said, or typed."""
    if profile.username:
        return profile.username
    if not terminal.is_interactive():
        raise click.UsageError("give --username")
    typed: str = click.prompt("Login name", err=True)
    return typed


def _enter(call: Call, name: str, profile: Profile, who: str, log_in: Callable[[Client], str]) -> None:
    """Log in, and keep profile and tokens: a log-in that fails leaves nothing behind."""
    from dataclasses import replace

    from vantage.client import Client, profiles
    from vantage.client.tokens import FileTokenStore

    with Client.connect(
        profile.address,
        fingerprint=profile.fingerprint,
        ca=profile.ca,
        tls=profile.tls,
        token_store=FileTokenStore(profiles.token_path(name)),
    ) as client:
        user = log_in(client)
    with profiles.changing() as box:
        box[0] = box[0].put(name, replace(profile, username=who or short(user))).use(name)
    call.output.done(
        f"logged in to {profile.address} as {short(user)} (profile {name})",
        {"user": user, "server": profile.address, "profile": name},
    )


@command(
    None,
    "login",
    "vantage login --server example.org:7600 --fingerprint sha256:HEX --username alice",
    "vantage login",
    "pass show vantage | vantage login --username alice --password-stdin",
    "vantage login --provider",
    "vantage login --provider --device",
)
@_SERVER
@trust_options
@_USERNAME
@_PASSWORD
@click.option("--one-time-code", default="", metavar="CODE", help="Of your app, or a recovery code.")
@click.option("--provider", is_flag=True, help="Log in at the server's identity provider, with your browser.")
@click.option("--device", is_flag=True, help="With --provider: with the browser of another device, as over SSH.")
def login(
    call: Call,
    server: str | None,
    fingerprint: str | None,
    ca: Path | None,
    insecure: bool,
    username: str | None,
    password_stdin: bool,
    one_time_code: str,
    provider: bool,
    device: bool,
) -> None:
    """Log in with a password, or at an identity provider.

    The first time, name the server: it is kept in a profile, with how to recognise it and who you are. The session
    lasts until 'vantage logout', or until it has not been used for some days.
    """
    name, profile = profile_of(call.profile, server, fingerprint, ca, insecure, username)
    if device and not provider:
        raise click.UsageError("--device goes with --provider")
    if provider:
        if username or password_stdin or one_time_code:
            raise click.UsageError("--provider takes no user name, password or code: the provider asks for them")
        _enter(call, name, profile, "", lambda client: at_provider(client.auth.login_at_provider, device=device))
        return
    who = _username(profile)
    password = terminal.secret(f"Password of {who}", from_stdin=password_stdin, option="--password-stdin")
    _enter(call, name, profile, who, lambda client: _with_password(client, who, password, one_time_code))


def _with_password(client: Client, who: str, password: str, code: str) -> str:
    from vantage.common.errors import Reason, UnauthenticatedError

    try:
        return client.auth.login(who, password, code)
    except UnauthenticatedError as problem:
        if problem.reason is not Reason.ONE_TIME_CODE_REQUIRED or not terminal.is_interactive():
            raise
    return client.auth.login(who, password, click.prompt("One-time code", err=True))


def at_provider(
    enter: Callable[[Callable[[DeviceCode], None] | None, Callable[[str], None] | None], str], *, device: bool
) -> str:
    """Tell a person where to go, while ``enter`` (show, open_browser) waits for them at the provider."""
    import webbrowser

    def show(code: DeviceCode) -> None:
        click.echo(f"open {code.complete_address or code.address}\ncode: {code.code}", err=True)

    def open_browser(address: str) -> None:
        click.echo(f"open {address}", err=True)
        webbrowser.open(address)

    return enter(show, None) if device else enter(None, open_browser)


@command(
    None,
    "bootstrap",
    "vantage bootstrap --server 127.0.0.1:7600 --fingerprint sha256:HEX --username root --token TOKEN",
)
@_SERVER
@trust_options
@_USERNAME
@_PASSWORD
@click.option(
    "--token",
    envvar="VANTAGE_BOOTSTRAP_TOKEN",
    metavar="TOKEN",
    help="What 'vantage server init' printed; works once. [env: VANTAGE_BOOTSTRAP_TOKEN]",
)
def bootstrap(
    call: Call,
    server: str | None,
    fingerprint: str | None,
    ca: Path | None,
    insecure: bool,
    username: str | None,
    password_stdin: bool,
    token: str | None,
) -> None:
    """Create the first user of a new server, and log in.

    The user has the role root. The password has at least 12 characters.
    """
    name, profile = profile_of(call.profile, server, fingerprint, ca, insecure, username or "root")
    who = _username(profile)
    if token is None:
        if not terminal.is_interactive():
            raise click.UsageError("give --token: 'vantage server init' printed it")
        token = click.prompt("Bootstrap token", err=True)
    password = terminal.secret(
        f"New password for {who}", from_stdin=password_stdin, option="--password-stdin", confirm=True
    )
    _enter(call, name, profile, who, lambda client: client.auth.bootstrap(token, who, password))


@command(None, "logout", "vantage logout", "vantage logout --all")
@click.option("--all", "all_sessions", is_flag=True, help="End your sessions on all machines.")
def logout(call: Call, all_sessions: bool) -> None:
    """End the session."""
    with call.client() as client:
        ended = client.auth.logout(all_sessions=all_sessions)
    call.output.done(f"logged out; sessions ended: {ended}", {"ended_sessions": ended})


_PRINCIPAL = (
    Column("NAME", "name"),
    Column("ORGANIZATION", lambda item: short(item.organization)),
    Column("ROLES", shorts("roles")),
    Column("COLLABORATIONS", shorts("collaborations")),
)


@command(None, "whoami", "vantage whoami")
def whoami(call: Call) -> None:
    """Tell who you are and what you may do."""
    with call.client() as client:
        call.output.item(client.auth.whoami(), _PRINCIPAL)
