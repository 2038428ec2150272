"""``vantage node issue`` and ``vantage user issue``: the organization answers signing requests, without a server."""

from __future__ import annotations

from pathlib import Path

import click

from vantage.client.cli import terminal
from vantage.client.cli.authorities import DAYS, DIRECTORY, PASSPHRASE, PASSPHRASE_FILE, open_directory, short
from vantage.client.cli.command import Call, command

_REQUEST = click.argument("request", type=click.Path(dir_okay=False, exists=True, path_type=Path))
_OUT = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to put the certificate; stdout without it."
)
_DAYS = click.option("--days", type=DAYS, default=365, show_default=True, help="How long it is valid.")
_YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@command(
    None,
    "issue",
    "vantage node issue node-cert.csr --ca ~/clara-ca",
    "vantage node issue node-cert.csr --ca ~/clara-ca --expect clara-1 --yes > node-cert.pem",
    local=True,
)
@_REQUEST
@DIRECTORY
@_OUT
@click.option("--expect", metavar="NODE", default="", help="Refuse a request for any other node.")
@_DAYS
@_YES
@PASSPHRASE
@PASSPHRASE_FILE
def issue_node(
    call: Call,
    request: Path,
    directory: Path,
    out: Path | None,
    expect: str,
    days: int,
    yes: bool,
    passphrase_stdin: bool,
    passphrase_file: Path | None,
) -> None:
    """Certify a node: answer the signing REQUEST that 'vantage node init' or 'vantage node renew' made.

    Requests of other tools carry no name: --expect then gives it.
    """
    _issue(call, "nodes", request, directory, out, expect, days, yes, (passphrase_stdin, passphrase_file))


@command(
    None,
    "issue",
    "vantage user issue user-cert.csr --ca ~/clara-ca --expect rosa",
    local=True,
)
@_REQUEST
@DIRECTORY
@_OUT
@click.option("--expect", metavar="USER", default="", help="Refuse a request for any other user.")
@_DAYS
@_YES
@PASSPHRASE
@PASSPHRASE_FILE
def issue_user(
    call: Call,
    request: Path,
    directory: Path,
    out: Path | None,
    expect: str,
    days: int,
    yes: bool,
    passphrase_stdin: bool,
    passphrase_file: Path | None,
) -> None:
    """Certify a user or a service account: answer the signing REQUEST for their key.

    Requests of other tools carry no name: --expect then gives it.
    """
    _issue(call, "users", request, directory, out, expect, days, yes, (passphrase_stdin, passphrase_file))


def _issue(
    call: Call,
    kind: str,
    request: Path,
    directory: Path,
    out: Path | None,
    expect: str,
    days: int,
    yes: bool,
    phrase: tuple[bool, Path | None],
) -> None:
    from vantage.common import pki
    from vantage.common.errors import Reason, VantageError, error

    content = request.read_bytes()
    try:
        asked = pki.load_request(content).name
    except VantageError as problem:
        raise error(problem.reason, f"{request} is not a signing request: {problem.message}") from None
    if asked and expect and expect not in (asked, short(asked)):
        raise error(Reason.CERTIFICATE_INVALID, f"{request} asks for {asked}, not for {expect}: do not certify it")
    opened, _ = open_directory(directory, *phrase)
    name = asked
    if not asked and expect:
        name = expect if "/" in expect else f"{opened.authority.organization}/{kind}/{expect}"
    if not name:
        raise error(Reason.CERTIFICATE_INVALID, f"{request} carries no name: give it with --expect")
    terminal.confirm(f"Certify that the holder of this request is {name}?", yes=yes)
    certificate = opened.issue(content, f"organizations/{kind}", name, days)
    # With the authority, so that the holder knows whom to trust.
    pem = pki.to_pem(certificate) + pki.to_pem(opened.authority.certificate)
    if out is not None:
        out.write_text(pem)
    if call.output.is_json:
        call.output.document(
            {
                "name": name,
                "serial": pki.serial_text(certificate),
                "fingerprint": pki.fingerprint(certificate),
                "expires": certificate.not_valid_after_utc,
                "certificate": pem,
            }
        )
        return
    if out is None:
        click.echo(pem, nl=False)
    call.output.note(
        f"certified {name} until {certificate.not_valid_after_utc:%Y-%m-%d}: give the certificate to whoever asked"
    )
