"""``vantage trust``: which organizations' authorities you believe, on this machine, for one server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.output import Column

if TYPE_CHECKING:
    from cryptography import x509

    from vantage.common.trust import TrustStore


@click.group()
def trust() -> None:
    """Whose certificates you believe: who signed an answer."""


class _Entry(NamedTuple):
    organization: str
    standing: str
    fingerprint: str
    how: str


COLUMNS = (
    Column("ORGANIZATION", "organization"),
    Column("STANDING", "standing"),
    Column("FINGERPRINT", "fingerprint"),
    Column("HOW", "how"),
)


@command(
    trust,
    "add",
    "vantage trust add hilda --fingerprint sha256:6f1c...",
    "vantage trust add hilda --certificate hilda-ca.pem",
)
@click.argument("organization")
@click.option("--fingerprint", help="Trust the authority with this fingerprint, which the server names.")
@click.option(
    "--certificate",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Trust the authority in this file, which the organization's admin gave you.",
)
def add(call: Call, organization: str, fingerprint: str | None, certificate: Path | None) -> None:
    """Believe an authority of ORGANIZATION.

    Get the fingerprint, or the file, from the organization itself, not from the server.
    """
    if (fingerprint is None) == (certificate is None):
        raise click.UsageError("give either --fingerprint or --certificate")
    from vantage.common import pki

    name, store = _full(organization), _store(call)
    if certificate is not None:
        store.pin(name, found := pki.load_certificates(certificate.read_bytes())[0])
    else:
        with call.client() as client:
            store.offer(client.trust.bundle())
        found = store.confirm(name, fingerprint or "")
    mark = pki.fingerprint(found)
    call.output.done(f"trusts {mark} as an authority of {name}", {"organization": name, "fingerprint": mark})


@command(trust, "list", "vantage trust list", "vantage trust list --offline")
@click.option("--offline", is_flag=True, help="Do not ask the server what it names.")
def list_trusted(call: Call, offline: bool) -> None:
    """Show whom you believe, and whom the server names besides."""
    from vantage.common import pki

    store = _store(call)
    if not offline:
        with call.client() as client:
            store.offer(client.trust.bundle())
    entries = []
    for record in store.records():
        for pin in record.pins:
            standing = "given up by the organization" if pin.withdrawn else "trusted"
            entries.append(_Entry(record.organization, standing, pin.fingerprint, pin.how.value))
        entries += [
            _Entry(record.organization, "offered, not trusted", pki.fingerprint(each), "") for each in record.offered
        ]
    shown = [entry._asdict() for entry in entries] if call.output.is_json else entries
    call.output.table(shown, COLUMNS, none="nobody is trusted yet")


@command(trust, "remove", "vantage trust remove hilda", "vantage trust remove hilda --fingerprint sha256:6f1c...")
@click.argument("organization")
@click.option("--fingerprint", help="Only this authority; all of the organization without it.")
def remove(call: Call, organization: str, fingerprint: str | None) -> None:
    """Believe ORGANIZATION no longer."""
    gone = _store(call).remove(_full(organization), fingerprint)
    call.output.done("\n".join(f"no longer trusts {mark}" for mark in gone), {"removed": gone})


def _store(call: Call) -> TrustStore:
    from vantage.client import profiles
    from vantage.common.trust import TrustStore

    chosen, _ = profiles.load().get(call.profile)
    return TrustStore(profiles.keys_path(chosen), own=_own_chain(profiles.keys_path(chosen)))


def _own_chain(directory: Path) -> list[x509.Certificate]:
    from vantage.client.keyring import CERTIFICATE_FILE
    from vantage.common import pki

    path = directory / CERTIFICATE_FILE
    return pki.load_certificates(path.read_bytes()) if path.exists() else []


def _full(organization: str) -> str:
    return organization if "/" in organization else f"organizations/{organization}"
