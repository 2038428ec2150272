"""``vantage organization``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vantage.client.cli import authorities, terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import add_delete, add_get, add_list
from vantage.client.cli.output import Column

if TYPE_CHECKING:
    from vantage.client import AuthoritiesChanged, Organization


def _authorities(item: Organization | AuthoritiesChanged) -> str:
    """One fingerprint per line, as the organization's admin compares them."""
    from vantage.common import pki

    found = [each for pem in item.ca_certificates for each in pki.load_certificates(pem)]
    return "\n".join(f"{pki.fingerprint(each)} until {each.not_valid_after_utc:%Y-%m-%d}" for each in found) or "none"


COLUMNS = (
    Column("NAME", "name"),
    Column("TITLE", "display_name"),
    Column("AUTHORITIES", lambda item: len(item.ca_certificates)),
    Column("FINGERPRINTS", _authorities, wide=True),
    Column("CREATED", "create_time"),
)


@click.group()
def organization() -> None:
    """Organizations and their certificate authorities."""


for local in (authorities.init, authorities.renew, authorities.revoke, authorities.crl, authorities.issued):
    organization.add_command(local)
add_get(organization, "organizations", COLUMNS, "clara")
add_list(organization, "organizations", COLUMNS)
add_delete(organization, "organizations", "clara", "It must have no users, nodes and memberships.")

_CERTIFICATES = click.Path(exists=True, dir_okay=False, path_type=Path)


@command(
    organization,
    "create",
    "vantage organization create clara --title 'Clara hospital' --ca-certificate ca/ca-cert.pem",
)
@click.argument("name")
@click.option("--title", default="", help="Name for people.")
@click.option(
    "--ca-certificate", "certificates", multiple=True, type=_CERTIFICATES, help="Of its authority, PEM; repeatable."
)
def create(call: Call, name: str, title: str, certificates: tuple[Path, ...]) -> None:
    """Create an organization."""
    pems = [_pem(path) for path in certificates]
    with call.client() as client:
        made = client.organizations.create(name, display_name=title, ca_certificates=pems)
    call.output.done(f"created {made.name}", made)


@command(organization, "set-ca", "vantage organization set-ca clara ca/ca-cert.pem")
@click.argument("name")
@click.argument("certificates", nargs=-1, required=True, type=_CERTIFICATES)
def set_ca(call: Call, name: str, certificates: tuple[Path, ...]) -> None:
    """Replace the authorities of an organization.

    Nodes whose certificates chain to none of CERTIFICATES (PEM) cannot log in any more: while you change over, give
    the old one and the new one.
    """
    pems = [_pem(path) for path in certificates]
    with call.client() as client:
        changed = client.organizations.set_ca_certificates(name, pems)
    call.output.done(
        f"{changed.name} has {len(changed.ca_certificates)} authorities:\n{_authorities(changed)}", changed
    )


@command(organization, "add-ca", "vantage organization add-ca clara ca/ca-cert.pem")
@click.argument("name")
@click.argument("certificate", type=_CERTIFICATES)
def add_ca(call: Call, name: str, certificate: Path) -> None:
    """Tell the server of one more authority of an organization; those that it has go on to count."""
    with call.client() as client:
        changed = client.trust.add_authority(name, _pem(certificate))
    call.output.done(f"{name} has {len(changed.ca_certificates)} authorities:\n{_authorities(changed)}", changed)


@command(organization, "remove-ca", "vantage organization remove-ca clara sha256:6f1c...")
@click.argument("name")
@click.argument("fingerprint")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove_ca(call: Call, name: str, fingerprint: str, yes: bool) -> None:
    """Take an authority of an organization back.

    Nodes and users that only it certified are turned away at once.
    """
    terminal.confirm(f"Remove the authority {fingerprint} of {name}?", yes=yes)
    with call.client() as client:
        changed = client.trust.remove_authority(name, fingerprint)
    call.output.done(
        f"{name} has {len(changed.ca_certificates)} authorities, {changed.ended_sessions} sessions of nodes ended:\n"
        f"{_authorities(changed)}",
        changed,
    )


@command(organization, "set-crl", "vantage organization set-crl clara ca/crl.pem")
@click.argument("name")
@click.argument("revocation_list", type=_CERTIFICATES)
def set_crl(call: Call, name: str, revocation_list: Path) -> None:
    """Tell the server which certificates an organization revoked; it takes effect at once."""
    with call.client() as client:
        found = client.trust.set_revocations(name, revocation_list.read_bytes())
    call.output.done(
        f"list {found.number} of {name} is in force: {found.revoked_certificates} certificates are revoked, "
        f"{found.ended_sessions} sessions of nodes ended; the next list is due {found.next_update:%Y-%m-%d}",
        found,
    )


@command(organization, "update", "vantage organization update clara --title 'Clara Hospital'")
@click.argument("name")
@click.option("--title", required=True, help="Name for people.")
@click.option("--etag", default="", help="Version that you saw; the change fails when there is a newer one.")
def update(call: Call, name: str, title: str, etag: str) -> None:
    """Change an organization."""
    with call.client() as client:
        changed = client.organizations.update(name, title, etag)
    call.output.done(f"changed {changed.name}", changed)


def _pem(path: Path) -> str:
    """A file of certificates; what is none, such as DER, is for the server to refuse."""
    return path.read_text("utf-8", "replace")
