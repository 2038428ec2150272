"""``vantage key``: the keys that sign what you ask and open what is answered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.output import Column
from vantage.client.cli.passphrase import asking

if TYPE_CHECKING:
    from datetime import datetime

    from vantage.client import KeyFiles, Keyring


class _Row(NamedTuple):
    kind: str
    key: str
    since: datetime | None
    until: datetime | None
    state: str


COLUMNS = (
    Column("KIND", "kind"),
    Column("KEY", "key"),
    Column("SINCE", "since"),
    Column("UNTIL", "until"),
    Column("STATE", "state"),
)
_SIGNING = "signing"
_SEALING = "answers"


@click.group()
def key() -> None:
    """Keys that sign what you ask and open what is answered."""


@command(
    key,
    "create",
    "vantage key create --passphrase",
    "vantage key create --name dora/rosa",
)
@click.option("--name", metavar="ORG/USER", help="Whose; without it, those of whoever is logged in.")
@click.option("--passphrase", "ask", is_flag=True, help="Ask for a passphrase that encrypts the keys.")
@click.option("--passphrase-stdin", is_flag=True, help="Read that passphrase from stdin.")
def create(call: Call, name: str | None, ask: bool, passphrase_stdin: bool) -> None:
    """Make your keys and the request for a certificate.

    The keys stay on this machine, and nobody can replace them: back up their directory.
    """
    chosen, files = _files(call)
    who = _full(name) if name else _logged_in(call)
    phrase = None
    if ask or passphrase_stdin:
        phrase = terminal.secret(
            "New passphrase", from_stdin=passphrase_stdin, option="--passphrase-stdin", confirm=True
        ).encode()
    request = files.create(who, phrase)
    (newest, *_) = files.seal_keys()
    document = {"name": who, "profile": chosen, "request": request, "recipient": newest.recipient}
    call.output.done(f"made keys for {who} in {files.directory}", document)
    if not call.output.is_json:
        organization = who.split("/")[1]
        call.output.note(
            f"next: send {request} to the admin of {organization}, who answers with 'vantage user issue'; then run "
            "'vantage key import FILE' with what comes back"
        )


@command(key, "import", "vantage key import rosa-cert.pem")
@click.argument("certificate", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--offline", is_flag=True, help="Do not tell the server: 'vantage key publish' does it later.")
def import_certificate(call: Call, certificate: Path, offline: bool) -> None:
    """Take the CERTIFICATE that your organization issued, and publish the key that answers are sealed to."""
    _chosen, files = _files(call)
    leaf = files.install(certificate.read_bytes())
    document: dict[str, object] = {"name": files.name(), "expires": leaf.not_valid_after_utc}
    if not offline:
        document["version"] = _publish(call, files)
    call.output.done(f"{files.name()} is certified until {leaf.not_valid_after_utc:%Y-%m-%d}", document)


@command(key, "list", "vantage key list")
def list_keys(call: Call) -> None:
    """List your keys."""
    _chosen, files = _files(call)
    if not files.exists:
        call.output.table([], COLUMNS, none="no keys: 'vantage key create' makes them")
        return
    rows = [_signing_row(files)]
    rows += [
        _Row(_SEALING, each.recipient, each.created, None, "newest" if each.newest else "opens old answers")
        for each in files.seal_keys()
    ]
    rows += [_Row("recovery", each, None, None, "opens new answers, too") for each in files.recovery()]
    shown = [row._asdict() for row in rows] if call.output.is_json else rows
    call.output.table(shown, COLUMNS, none="no keys")


@command(key, "export", "vantage key export", "vantage key export --secret > seal-keys.txt")
@click.option("--secret", is_flag=True, help="The secret keys that open answers, as the tool age takes them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before secret keys are printed.")
def export(call: Call, secret: bool, yes: bool) -> None:
    """Print the public key that others seal to, or with --secret what opens your answers."""
    _chosen, files = _files(call)
    if not secret:
        (newest, *_) = files.seal_keys()
        call.output.done(newest.recipient, {"name": files.name(), "recipient": newest.recipient})
        return
    files.seal_keys()  # says what is missing before it asks
    if sys.stdout.isatty():
        terminal.confirm("Whoever sees these keys can read all your answers. Print them?", yes=yes)
    call.output.done("\n".join(files.identities()), {"name": files.name(), "identities": files.identities()})


@command(key, "rotate", "vantage key rotate")
@click.option("--offline", is_flag=True, help="Do not tell the server: 'vantage key publish' does it later.")
def rotate(call: Call, offline: bool) -> None:
    """Make a new key that answers are sealed to; the older ones go on to open old answers."""
    _chosen, files = _files(call)
    keyring = None if offline else _open(files)  # before anything is changed
    recipient = files.rotate()
    document: dict[str, object] = {"recipient": recipient}
    if keyring is not None:
        document["version"] = _publish(call, files, keyring)
    call.output.done(f"new answers are sealed to {recipient}", document)


@command(key, "revoke", "vantage key revoke age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p")
@click.argument("recipient")
@click.option("--offline", is_flag=True, help="Do not tell the server: 'vantage key publish' does it later.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def revoke(call: Call, recipient: str, offline: bool, yes: bool) -> None:
    """Destroy a key: answers that were sealed to RECIPIENT alone can never be opened again.

    When it was the newest one, a new one takes its place. A signing key that was stolen is for your organization's
    admin to revoke.
    """
    _chosen, files = _files(call)
    keyring = None if offline else _open(files)  # before anything is changed
    terminal.confirm(f"Destroy {recipient}, and lose what only it opens?", yes=yes)
    newest = files.revoke(recipient)
    document: dict[str, object] = {"revoked": recipient, "recipient": newest}
    if keyring is not None:
        document["version"] = _publish(call, files, keyring)
    call.output.done(f"destroyed {recipient}; new answers are sealed to {newest}", document)


@command(key, "publish", "vantage key publish")
def publish(call: Call) -> None:
    """Tell the server, signed, which key others seal to."""
    _chosen, files = _files(call)
    version = _publish(call, files)
    call.output.done(f"published version {version} of the keys of {files.name()}", {"version": version})


@command(
    key,
    "recovery",
    "vantage key recovery age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    "vantage key recovery --none",
)
@click.argument("recipients", nargs=-1)
@click.option("--none", is_flag=True, help="Nobody besides you.")
def recovery(call: Call, recipients: tuple[str, ...], none: bool) -> None:
    """Let the holders of RECIPIENTS open your new answers, too: a recovery key of your organization.

    Its secret half stays with the organization: 'age-keygen' makes one.
    """
    if bool(recipients) == none:
        raise click.UsageError("give RECIPIENTS, or --none")
    _chosen, files = _files(call)
    files.set_recovery(recipients)
    whom = ", ".join(recipients)
    text = f"new answers can be opened with {whom}, too" if whom else "new answers can be opened by you alone"
    call.output.done(text, {"recovery": list(recipients)})


def _files(call: Call) -> tuple[str, KeyFiles]:
    from vantage.client import profiles
    from vantage.client.keyring import KeyFiles

    chosen, _profile = profiles.load().get(call.profile)
    files = KeyFiles(profiles.keys_path(chosen), passphrase=lambda: asking(files))
    return chosen, files


def _open(files: KeyFiles) -> Keyring:
    return files.open()


def _publish(call: Call, files: KeyFiles, opened: Keyring | None = None) -> int:
    """Publish the list of keys; ``opened`` spares the person a second question for the passphrase."""
    from dataclasses import replace

    keyring = opened or _open(files)
    with call.client() as client:
        return client.keys.publish(files, replace(keyring, identities=tuple(files.identities())))


def _logged_in(call: Call) -> str:
    with call.client() as client:
        who = client.auth.whoami()
    if not who.organization:
        raise click.UsageError("you belong to no organization, so nobody can certify a key of yours")
    return f"{who.organization}/{who.name}"


def _full(text: str) -> str:
    organization, _, user = text.removeprefix("organizations/").replace("/users/", "/").partition("/")
    if not organization or not user:
        raise click.UsageError("--name is ORG/USER")
    return f"organizations/{organization}/users/{user}"


def _signing_row(files: KeyFiles) -> _Row:
    from datetime import UTC, datetime

    from vantage.common import pki

    chain = files.chain()
    if not chain:
        return _Row(_SIGNING, files.name(), None, None, "not certified: 'vantage key import FILE'")
    leaf = chain[0]
    state = "certified" if leaf.not_valid_after_utc > datetime.now(UTC) else "expired: have it certified again"
    return _Row(_SIGNING, pki.fingerprint(leaf), leaf.not_valid_before_utc, leaf.not_valid_after_utc, state)
