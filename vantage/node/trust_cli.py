"""``vantage node trust``: which organizations' authorities a node believes. Works on its data directory, offline."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vantage.common.trust import TrustStore

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("node.yaml"),
    show_default=True,
    help="The node's configuration.",
)


@click.group()
def trust() -> None:
    """Decide which organizations' authorities the node believes. A running node sees it at once."""


@trust.command(
    "add",
    epilog="\b\nExamples:\n"
    "  vantage node trust add hilda --fingerprint sha256:6f1c...\n"
    "  vantage node trust add hilda --certificate hilda-ca.pem",
)
@click.argument("organization")
@click.option("--fingerprint", help="Trust the authority with this fingerprint, which the server has named.")
@click.option(
    "--certificate",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Trust the authority in this file, which the organization's admin gave you.",
)
@_CONFIG
def add(organization: str, fingerprint: str | None, certificate: Path | None, config_path: Path) -> None:
    """Believe an authority of ORGANIZATION: users and nodes that it certified may then be believed here.

    Get the fingerprint, or the file, from the organization itself, not from the server.
    """
    if (fingerprint is None) == (certificate is None):
        raise click.UsageError("give either --fingerprint or --certificate")
    from vantage.common import pki

    name = _full(organization)
    with _store(config_path) as store:
        if certificate is not None:
            store.pin(name, mark := pki.load_certificates(certificate.read_bytes())[0])
        else:
            mark = store.confirm(name, fingerprint or "")
    click.echo(f"trusts {pki.fingerprint(mark)} as an authority of {name}")


@trust.command("list", epilog="\b\nExample:\n  vantage node trust list --config /srv/node/node.yaml")
@_CONFIG
def list_trusted(config_path: Path) -> None:
    """Show whom the node believes, what was offered, and what is revoked."""
    from vantage.common import pki

    with _store(config_path) as store:
        records = store.records()
    if not records:
        click.echo("nobody is trusted yet: authorities are offered when the node connects")
    for record in records:
        click.echo(record.organization)
        for pin in record.pins:
            standing = "given up by the organization, does not count" if pin.withdrawn else "trusted"
            click.echo(f"  {standing}: {pin.fingerprint} ({pin.how.value}, {pin.since:%Y-%m-%d})")
        for certificate in record.offered:
            click.echo(f"  offered by the server, not trusted: {pki.fingerprint(certificate)}")
        if (revocations := record.revocations) is not None:
            click.echo(
                f"  revoked: {len(revocations.serials)} certificates (list {revocations.number}, the next is due "
                f"{revocations.expires:%Y-%m-%d})"
            )


@trust.command("remove", epilog="\b\nExample:\n  vantage node trust remove hilda")
@click.argument("organization")
@click.option("--fingerprint", help="Only this authority; all of the organization without it.")
@_CONFIG
def remove(organization: str, fingerprint: str | None, config_path: Path) -> None:
    """Believe ORGANIZATION no longer; it is not trusted at first use again either."""
    with _store(config_path) as store:
        gone = store.remove(_full(organization), fingerprint)
    for mark in gone:
        click.echo(f"no longer trusts {mark}")


@contextmanager
def _store(config_path: Path) -> Iterator[TrustStore]:
    from vantage.common.errors import ConfigurationError, VantageError
    from vantage.common.trust import TrustStore
    from vantage.node import config
    from vantage.node.trust import COMMAND, DIRECTORY

    try:
        yield TrustStore(config.load(config_path).data_dir / DIRECTORY, command=COMMAND)
    except VantageError as problem:
        click.echo(f"Error: {problem.message}", err=True)
        sys.exit(2 if isinstance(problem, ConfigurationError) else 1)


def _full(organization: str) -> str:
    return organization if "/" in organization else f"organizations/{organization}"
