"""``vantage organization init`` and what follows it: the organization's own authority. No server is involved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.output import Column

if TYPE_CHECKING:
    from vantage.common.authority import AuthorityDirectory, Issued

PASSPHRASE = click.option(
    "--passphrase-stdin", is_flag=True, help="Read the passphrase of the authority's key from stdin."
)
PASSPHRASE_FILE = click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Read the passphrase of the authority's key from this file.",
)
DIRECTORY = click.option(
    "--ca",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("ca"),
    show_default=True,
    envvar="VANTAGE_CA",
    help="Directory of the authority. [env: VANTAGE_CA]",
)
DAYS = click.IntRange(1, 3650)


def open_directory(directory: Path, from_stdin: bool, file: Path | None) -> tuple[AuthorityDirectory, bytes | None]:
    """Open an authority; ask for the passphrase only when its key has one. Returns the passphrase as well."""
    from vantage.common import pki
    from vantage.common.authority import AuthorityDirectory
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
        given = os.environ.get("VANTAGE_CA_PASSPHRASE", "").encode()
        if file is not None:
            given = _passphrase_in(file)
        option = "--passphrase-stdin"
        phrase = given or terminal.secret("Passphrase of the authority", from_stdin=from_stdin, option=option).encode()
    return AuthorityDirectory.open(directory, passphrase=phrase), phrase


def short(name: str) -> str:
    """The last part of a name."""
    return name.rpartition("/")[2]


@command(None, "init", "vantage organization init clara --ca ~/clara-ca --passphrase", local=True)
@click.argument("organization")
@DIRECTORY
@click.option("--passphrase", "ask", is_flag=True, help="Ask for a passphrase that encrypts the key.")
@PASSPHRASE
@PASSPHRASE_FILE
def init(
    call: Call, organization: str, directory: Path, ask: bool, passphrase_stdin: bool, passphrase_file: Path | None
) -> None:
    """Create the certificate authority of ORGANIZATION.

    Its key vouches for the organization's nodes and users, and never leaves the directory: keep it safe, and keep it
    offline if you can. Its certificate is public: 'vantage organization add-ca' tells it to a server.
    """
    from vantage.common import pki

    phrase = _new_passphrase(ask, passphrase_stdin, passphrase_file)
    authority = pki.CertificateAuthority.create(directory, f"organizations/{short(organization)}", passphrase=phrase)
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
    call.output.note(f"next: vantage organization add-ca {short(organization)} {certificate}")


@command(
    None,
    "renew",
    "vantage organization renew --ca ~/clara-ca",
    "vantage organization renew --ca ~/clara-ca --new-key",
    local=True,
)
@DIRECTORY
@click.option("--new-key", is_flag=True, help="A new key as well; the old certificate goes on until you remove it.")
@PASSPHRASE
@PASSPHRASE_FILE
def renew(call: Call, directory: Path, new_key: bool, passphrase_stdin: bool, passphrase_file: Path | None) -> None:
    """Give the authority a new certificate; the old one is kept in 'previous'.

    With the same key, everything that was issued goes on to count. With a new key, tell the new certificate to the
    servers and to the other organizations, issue new certificates to nodes and users, and remove the old one in the
    end. The passphrase stays the same.
    """
    from vantage.common import pki

    opened, phrase = open_directory(directory, passphrase_stdin, passphrase_file)
    before = pki.fingerprint(opened.authority.certificate)
    certificate = opened.renew(new_key=new_key, passphrase=phrase)
    organization, path = short(opened.authority.organization), directory / pki.CA_CERTIFICATE_FILE
    fingerprint = pki.fingerprint(certificate)
    call.output.done(
        f"created {path}, valid until {certificate.not_valid_after_utc:%Y-%m-%d}\nfingerprint: {fingerprint}",
        {"certificate": path, "fingerprint": fingerprint, "previous": before},
    )
    call.output.note(f"next: vantage organization add-ca {organization} {path}")
    if new_key:
        call.output.note("then: issue new certificates, and sign the next revocation list (organization crl)")
    call.output.note(f"last: vantage organization remove-ca {organization} {before}")


@command(
    None,
    "revoke",
    "vantage organization revoke organizations/clara/nodes/clara-1 --ca ~/clara-ca --out crl.pem",
    "vantage organization revoke 4f2a...e1 --ca ~/clara-ca",
    local=True,
)
@click.argument("what", nargs=-1, required=True)
@DIRECTORY
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Put a copy of the list here.")
@click.option("--days", type=DAYS, help="How long the list is current; 180 without it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@PASSPHRASE
@PASSPHRASE_FILE
def revoke(
    call: Call,
    what: tuple[str, ...],
    directory: Path,
    out: Path | None,
    days: int | None,
    yes: bool,
    passphrase_stdin: bool,
    passphrase_file: Path | None,
) -> None:
    """Revoke certificates, and sign the next revocation list.

    WHAT is the name of a node or user (all its certificates), a serial number, or the file of a certificate. It takes
    effect when a server has the list: 'vantage organization set-crl'.
    """
    from cryptography import x509

    from vantage.common import pki

    opened, _ = open_directory(directory, passphrase_stdin, passphrase_file)
    found = [each for text in what for each in opened.find(text)]
    serials = [each.serial_number if isinstance(each, x509.Certificate) else each for each in found]
    named = [
        f"{pki.certified_name(each)} ({pki.serial_text(each)})" if isinstance(each, x509.Certificate) else f"{each:x}"
        for each in found
    ]
    terminal.confirm(f"Revoke {', '.join(named)}? That cannot be taken back.", yes=yes)
    opened.revoke(*serials, days=days)
    _say_list(call, opened, out, f"revoked {', '.join(named)}")


@command(None, "crl", "vantage organization crl --ca ~/clara-ca --days 180 --out crl.pem", local=True)
@DIRECTORY
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Put a copy of the list here.")
@click.option("--days", type=DAYS, help="How long the list is current; 180 without it.")
@PASSPHRASE
@PASSPHRASE_FILE
def crl(
    call: Call,
    directory: Path,
    out: Path | None,
    days: int | None,
    passphrase_stdin: bool,
    passphrase_file: Path | None,
) -> None:
    """Sign the revocation list anew, before it ends or after a roll-over; nothing more is revoked."""
    opened, _ = open_directory(directory, passphrase_stdin, passphrase_file)
    opened.revoke(days=days)
    _say_list(call, opened, out, "signed the revocation list")


@dataclass(frozen=True)
class _Issued:
    """One line of ``issued``."""

    name: str
    serial: str
    valid_from: datetime
    valid_until: datetime
    revoked: datetime | None

    @classmethod
    def of(cls, item: Issued) -> _Issued:
        found = item.certificate
        return cls(
            item.name,
            f"{found.serial_number:x}",
            found.not_valid_before_utc,
            found.not_valid_after_utc,
            item.revoked,
        )


ISSUED = (
    Column("NAME", "name"),
    Column("SERIAL", "serial"),
    Column("FROM", "valid_from"),
    Column("UNTIL", "valid_until"),
    Column("REVOKED", "revoked"),
)


@command(None, "issued", "vantage organization issued --ca ~/clara-ca", local=True)
@DIRECTORY
@PASSPHRASE
@PASSPHRASE_FILE
def issued(call: Call, directory: Path, passphrase_stdin: bool, passphrase_file: Path | None) -> None:
    """List what the authority has issued, oldest first."""
    opened, _ = open_directory(directory, passphrase_stdin, passphrase_file)
    call.output.table(map(_Issued.of, opened.issued()), ISSUED, none="nothing was issued yet")


def _say_list(call: Call, opened: AuthorityDirectory, out: Path | None, what: str) -> None:
    from vantage.common.authority import REVOCATIONS

    path, found = opened.directory / REVOCATIONS, opened.revocations()
    assert found is not None  # noqa: S101  # it was written just now
    if out is not None:
        out.write_bytes(path.read_bytes())
    call.output.done(
        f"{what}: list {found.number} with {len(found.serials)} certificates in {out or path}, the next is due "
        f"{found.expires:%Y-%m-%d}",
        {
            "revocation_list": out or path,
            "number": found.number,
            "revoked_certificates": len(found.serials),
            "next_update": found.expires,
        },
    )
    call.output.note(f"next: vantage organization set-crl {short(opened.authority.organization)} {out or path}")


def _new_passphrase(ask: bool, from_stdin: bool, file: Path | None) -> bytes | None:
    if file is not None:
        return _passphrase_in(file)
    if not ask and not from_stdin:
        return None
    typed = terminal.secret("New passphrase", from_stdin=from_stdin, option="--passphrase-stdin", confirm=True)
    return typed.encode()


def _passphrase_in(file: Path) -> bytes:
    """As it is, in whatever encoding: a passphrase is bytes."""
    return file.read_bytes().rstrip(b"\r\n")
