"""How a server is named on the command line: address and trust, kept in a profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vantage.client.cli import terminal

if TYPE_CHECKING:
    from vantage.client.profiles import Profile

DEFAULT = "default"
"""Name of the profile when nobody says one."""

Function = Callable[..., None]


def trust_options(function: Function) -> Function:
    """How a server is recognised; they become fields of its profile."""
    for option in reversed(
        (
            click.option("--fingerprint", metavar="SHA256", help="Of its certificate: 'vantage server fingerprint'."),
            click.option(
                "--ca",
                type=click.Path(exists=True, dir_okay=False, path_type=Path, resolve_path=True),
                help="Its certificate, or its authority's, PEM.",
            ),
            click.option("--insecure", is_flag=True, help="Without TLS; on loopback only."),
        )
    ):
        function = option(function)
    return function


def checked(profile: Profile) -> Profile:
    """The profile with its address and fingerprint checked and in one form.

    Raises:
        UsageError: contradicting trust.
        InvalidArgumentError: address or fingerprint malformed.
    """
    from dataclasses import replace

    from vantage.common.rpc import normalize_fingerprint, split_target

    if sum((profile.fingerprint is not None, profile.ca is not None, not profile.tls)) > 1:
        raise click.UsageError("give one of --fingerprint, --ca and --insecure")
    host, _port = split_target(profile.address)
    if not profile.tls and not is_loopback(host):
        raise click.UsageError(f"--insecure is for loopback only, not for {host}: give the server's --fingerprint")
    if profile.fingerprint is not None:
        return replace(profile, fingerprint=normalize_fingerprint(profile.fingerprint))
    return profile


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def recognised(profile: Profile) -> Profile:
    """The profile of a server that is used for the first time, with a way to recognise it.

    When nobody said one, the authorities of the system have to know the server's certificate; if they do not, and a
    person is there, the person compares the fingerprint and decides.

    Raises:
        UnavailableError: nobody said how to recognise the server, and it cannot be asked.
        UnauthenticatedError: nobody can vouch for the server.
    """
    from dataclasses import replace

    if profile.fingerprint is not None or profile.ca is not None or not profile.tls:
        return profile
    return replace(profile, fingerprint=_compared(profile.address))


def _compared(server: str) -> str | None:
    """None when the system's authorities vouch for the server, else the fingerprint that the person confirmed."""
    import asyncio

    from vantage.common.errors import Reason, error
    from vantage.common.rpc import fetch_certificate

    if asyncio.run(_is_known(server)):
        return None
    _pem, fingerprint, _name = asyncio.run(fetch_certificate(server))
    if not terminal.is_interactive():
        raise error(
            Reason.SERVER_CERTIFICATE_MISMATCH,
            f"no authority of this system vouches for the server at {server}: give its --fingerprint, which its "
            "operator sees with 'vantage server fingerprint'",
            target=server,
        )
    click.echo(f"The server at {server} shows the certificate\n  {fingerprint}", err=True)
    click.confirm("Does its operator see the same with 'vantage server fingerprint'?", abort=True, err=True)
    return fingerprint


async def _is_known(server: str) -> bool:
    """Whether the server's certificate is good for the authorities of the system."""
    import asyncio
    import contextlib
    import ssl

    from vantage.common.rpc import split_target

    host, port = split_target(server)
    with contextlib.suppress(OSError, TimeoutError):  # what cannot be reached is told by the next step
        async with asyncio.timeout(10):
            _reader, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context())
        writer.transport.abort()
        return True
    return False


def describe_trust(profile: Profile) -> str:
    """How a profile's server is recognised, in words."""
    if not profile.tls:
        return "without TLS"
    if profile.fingerprint:
        return profile.fingerprint
    return f"authority {profile.ca}" if profile.ca else "authorities of the system"
