"""``vantage organization init`` and ``vantage node issue``: the organization's own authority. No server is involved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command

if TYPE_CHECKING:
    from vantage.common.pki import CertificateAuthority

_PASSPHRASE = click.option(
    "--passphrase-stdin", is_flag=True, help="Read the passphrase of the authority's key from stdin."
)
_DIRECTORY = click.option(
    "--ca",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("ca"),
    show_default=True,
    envvar="VANTAGE_CA",
    help="Directory of the authority. [env: VANTAGE_CA]",
)


@command(None, "init", "vantage organization init clara --ca ~/clara-ca --passphrase", local=True)
@click.argument("organization")
@_DIRECTORY
@click.option("--passphrase", "ask", is_flag=True, help="Ask for a passphrase that encrypts the key.")
@_PASSPHRASE
def init_organization(call: Call, organization: str, directory: Path, ask: bool, passphrase_stdin: bool) -> None:
    """Create the certificate authority of ORGANIZATION.

    Its key vouches for the organization's nodes and users, and never leaves the directory: keep it safe, and keep it
    offline if you can. Its certificate is public: 'vantage organization set-ca' tells it to a server.
    """
    from vantage.common import pki

    phrase = _new_passphrase(ask, passphrase_stdin)
    authority = pki.CertificateAuthority.create(directory, f"organizations/{_short(organization)}", passphrase=phrase)
    certificate = directory / pki.CA_CERTIFICATE_FILE
    fingerprint = pki.fingerprint(authority.certificate)
    if call.output.is_json:
        call.output.document(
            {
                "organization": authority.organization,
                "certificate": certificate,
                "key": directory / pki.CA_KEY_FILE,
                "fingerprint": fingerprint,
                "expires": authority.certificate.not_valid_after_utc,
            }
        )
        return
    click.echo(f"created {certificate} and its key")
    click.echo(f"fingerprint: {fingerprint}")
    if phrase is None:
        call.output.note("The key is not encrypted: whoever reads it can speak for your organization (--passphrase).")
    call.output.note(f"next: vantage organization set-ca {_short(organization)} {certificate}")


@command(
    None,
    "issue",
    "vantage node issue node-cert.csr --ca ~/clara-ca",
    "vantage node issue node-cert.csr --ca ~/clara-ca --expect clara-1 --yes > node-cert.pem",
    local=True,
)
@click.argument("request", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@_DIRECTORY
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to put the certificate; stdout without it."
)
@click.option("--expect", metavar="NODE", help="Refuse a request for any other node.")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it is valid.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_PASSPHRASE
def issue_node(
    call: Call,
    request: Path,
    directory: Path,
    out: Path | None,
    expect: str | None,
    days: int,
    yes: bool,
    passphrase_stdin: bool,
) -> None:
    """Certify a node: answer the signing REQUEST that 'vantage node init' made."""
    from datetime import timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from vantage.common import names, pki
    from vantage.common.errors import Reason, error

    try:
        signing = x509.load_pem_x509_csr(request.read_bytes())
    except ValueError:
        raise error(
            Reason.CERTIFICATE_INVALID, f"{request} is not a signing request in PEM: 'vantage node init' makes one"
        ) from None
    name = pki.requested_name(signing)
    names.parse(name, "organizations/nodes", field="the requested name")
    if expect is not None and expect not in (name, name.rsplit("/", 1)[-1]):
        raise error(Reason.CERTIFICATE_INVALID, f"{request} asks for {name}, not for {expect}: do not certify it")
    key = signing.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise error(Reason.KEY_INVALID, f"the key in {request} is not an ECDSA P-256 key")
    authority = _open(directory, passphrase_stdin)
    terminal.confirm(f"Certify that the holder of this request is {name}?", yes=yes)
    certificate = authority.issue(name, key, lifetime=timedelta(days=days))
    pem = pki.to_pem(certificate)
    if out is not None:
        out.write_text(pem)
    if call.output.is_json:
        call.output.document(
            {
                "name": name,
                "fingerprint": pki.fingerprint(certificate),
                "expires": certificate.not_valid_after_utc,
                "certificate": pem,
            }
        )
        return
    if out is None:
        click.echo(pem, nl=False)
    call.output.note(
        f"certified {name} until {certificate.not_valid_after_utc:%Y-%m-%d}: give the certificate to the node's admin"
    )


def _open(directory: Path, from_stdin: bool) -> CertificateAuthority:
    """Open the authority; ask for the passphrase only when its key has one."""
    from vantage.common import pki
    from vantage.common.errors import Reason, error

    path = directory / pki.CA_KEY_FILE
    try:
        encrypted = b"ENCRYPTED" in path.read_bytes()
    except FileNotFoundError:
        raise error(
            Reason.KEY_INVALID,
            f"there is no authority in {directory}: name its directory with --ca, or make one "
            "with 'vantage organization init'",
            path=str(path),
        ) from None
    phrase = None
    if encrypted:
        given = os.environ.get("VANTAGE_CA_PASSPHRASE")
        phrase = (
            given or terminal.secret("Passphrase of the authority", from_stdin=from_stdin, option="--passphrase-stdin")
        ).encode()
    return pki.CertificateAuthority.load(directory, passphrase=phrase)


def _new_passphrase(ask: bool, from_stdin: bool) -> bytes | None:
    if not ask and not from_stdin:
        return None
    typed = terminal.secret("New passphrase", from_stdin=from_stdin, option="--passphrase-stdin", confirm=True)
    return typed.encode()


def _short(name: str) -> str:
    return name.removeprefix("organizations/")
