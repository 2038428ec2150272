"""``vantage profile``: which servers there are. None of them is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from vantage.client.cli.command import Call, command, complete_profiles
from vantage.client.cli.output import Column
from vantage.client.cli.servers import describe_trust, trust_options

if TYPE_CHECKING:
    from vantage.client.profiles import Profile


class _Row(NamedTuple):
    name: str
    current: bool
    profile: Profile


COLUMNS = (
    Column("NAME", "name"),
    Column("CURRENT", "current"),
    Column("SERVER", lambda row: row.profile.address),
    Column("TRUST", lambda row: describe_trust(row.profile)),
    Column("USERNAME", lambda row: row.profile.username),
)


@click.group()
def profile() -> None:
    """Servers that you use."""


_NAME = click.argument("name", shell_complete=complete_profiles)


@command(
    profile,
    "add",
    "vantage profile add hospital --server example.org:7600 --fingerprint sha256:HEX --username alice",
    local=True,
)
@click.argument("name")
@click.option("--server", required=True, metavar="HOST:PORT", help="Its address.")
@trust_options
@click.option("--username", default="", metavar="NAME", help="Your login name there.")
def add(
    call: Call, name: str, server: str, fingerprint: str | None, ca: Path | None, insecure: bool, username: str
) -> None:
    """Remember a server; the first one becomes the current one."""
    from vantage.client import profiles
    from vantage.client.cli.servers import checked
    from vantage.common.errors import Reason, error

    made = checked(profiles.Profile(server, fingerprint=fingerprint, ca=ca, tls=not insecure, username=username))
    with profiles.changing() as box:
        if name in box[0].profiles:
            raise error(Reason.ALREADY_EXISTS, f"there is a profile {name}: remove it first, or choose another name")
        box[0] = box[0].put(name, made)
    call.output.done(f"added {name}", {"name": name, **_fields(made)})


@command(profile, "use", "vantage profile use hospital", local=True)
@_NAME
def use(call: Call, name: str) -> None:
    """Make a profile the current one."""
    from vantage.client import profiles

    with profiles.changing() as box:
        box[0] = box[0].use(name)
    call.output.done(f"{name} is the current profile", {"current": name})


@command(profile, "list", "vantage profile list", local=True)
def list_profiles(call: Call) -> None:
    """List your profiles."""
    from vantage.client import profiles

    found = profiles.load()
    rows = [_Row(name, name == found.current, each) for name, each in sorted(found.profiles.items())]
    if call.output.is_json:
        call.output.document([{"name": row.name, "current": row.current, **_fields(row.profile)} for row in rows])
    else:
        call.output.table(rows, COLUMNS, none="no profiles: 'vantage login --server HOST:PORT' makes one")


@command(profile, "show", "vantage profile show", "vantage profile show hospital", local=True)
@click.argument("name", required=False, shell_complete=complete_profiles)
def show(call: Call, name: str | None) -> None:
    """Show a profile, the current one without NAME."""
    from vantage.client import profiles

    found = profiles.load()
    chosen, each = found.get(name)
    if call.output.is_json:
        call.output.document({"name": chosen, "current": chosen == found.current, **_fields(each)})
    else:
        call.output.item(_Row(chosen, chosen == found.current, each), COLUMNS)


@command(profile, "remove", "vantage profile remove hospital", local=True)
@_NAME
def remove(call: Call, name: str) -> None:
    """Forget a server and the session there.

    The session itself goes on until it ends by itself: 'vantage logout' ends it.
    """
    from vantage.client import profiles

    with profiles.changing() as box:
        box[0] = box[0].remove(name)
        profiles.token_path(name).unlink(missing_ok=True)
    call.output.done(f"removed {name}", {"removed": name})


def _fields(each: Profile) -> dict[str, object]:
    return {
        "address": each.address,
        "fingerprint": each.fingerprint,
        "ca": each.ca,
        "tls": each.tls,
        "username": each.username,
    }
