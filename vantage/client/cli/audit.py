"""``vantage audit``."""

from __future__ import annotations

import contextlib
import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.output import Column

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from vantage.client import AuditEntry


def _details(item: AuditEntry) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(item.details.items()))


COLUMNS = (
    Column("TIME", "time"),
    Column("EVENT", "event"),
    Column("DECISION", lambda item: item.decision.lower()),
    Column("WHO", "principal"),
    Column("WHAT", "target"),
    Column("REASON", "reason"),
    Column("FROM", "peer"),
    Column("DETAILS", _details),
)


_OWN = frozenset({"seq", "time", "event", "prev"})
_LINES = (
    Column("SEQ", lambda line: line["seq"]),
    Column("TIME", lambda line: line["time"]),
    Column("EVENT", lambda line: line["event"]),
    Column("FIELDS", lambda line: " ".join(f"{key}={value}" for key, value in line.items() if key not in _OWN)),
)


@click.group()
def audit() -> None:
    """Who asked what, and what was decided."""


@command(
    audit, "list", "vantage audit list --user anna --decision denied", "vantage audit list --target organizations/clara"
)
@click.option("--user", "principal", default="", metavar="NAME", help="Only by this user, or node by its full name.")
@click.option("--organization", default="", metavar="NAME", help="Only by users and nodes of this organization.")
@click.option("--event", default="", metavar="EVENT", help="Only this one, e.g. UserService.CreateUser.")
@click.option("--target", default="", metavar="NAME", help="Only about this, by full name, or what is in it.")
@click.option("--decision", default="", type=click.Choice(["", "allowed", "denied", "failed"]), help="Only these.")
@click.option("--after", type=click.DateTime(), help="Only from then on, local time.")
@click.option("--before", type=click.DateTime(), help="Only before then, local time.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Stop after this many.")
def list_entries(call: Call, limit: int, after: datetime | None, before: datetime | None, **filters: Any) -> None:
    """List entries that you may see, newest first."""
    filters |= {"after": after and after.astimezone(), "before": before and before.astimezone()}
    with call.client() as client:
        found = itertools.islice(client.audit.list(**filters), limit)
        call.output.table(found, COLUMNS, none="no entries that you may see")


@command(audit, "export", "vantage audit export audit.jsonl")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def export(call: Call, file: Path) -> None:
    """Write the server's hash-chained log to FILE, and its key to FILE.pem."""
    with call.client() as client:
        state = client.audit.log()
        with file.open("wb") as target:
            for chunk in client.audit.export():
                target.write(chunk)
    key = file.with_name(file.name + ".pem")
    key.write_text(state.public_key, "ascii")
    call.output.done(f"wrote {file} and {key}", {"file": str(file), "key": str(key), "lines": state.lines})


@command(
    audit,
    "verify",
    "vantage audit verify audit.jsonl --key audit.jsonl.pem",
    "vantage audit verify data/audit.log --key old-cert.pem --key node-cert.pem",
    local=True,
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Public key, or certificate, of the checkpoints, PEM; repeat it for those before a renewal. Without it, "
    "signatures are not checked.",
)
@click.option("--head", default="", metavar="HASH", help="Last line that you noted earlier: it must still be there.")
def verify(call: Call, file: Path, keys: tuple[Path, ...], head: str) -> None:
    """Check that no line of a log was changed, removed or moved. Needs no server.

    What was cut off at the end shows by the HASH that an earlier check printed, or by a copy that lies elsewhere.
    """
    from vantage.common import audit as log
    from vantage.common.errors import Reason, error

    report = log.verify(file, *map(_public_key, keys), noted_head=head)
    for problem in report.problems:
        call.output.note(problem)
    if not report.intact:
        raise error(Reason.AUDIT_LOG_DAMAGED, f"{file} is not what was written: {len(report.problems)} problems")
    call.output.done(
        f"{file} is intact: {report.lines} lines, {report.checkpoints} signed checkpoints, {report.unsigned} lines "
        f"after the last; head {report.head}",
        report,
    )


def _public_key(path: Path) -> ec.EllipticCurvePublicKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from vantage.common import pki
    from vantage.common.errors import Reason, VantageError, error

    content = path.read_bytes()
    loaded: object = None
    with contextlib.suppress(ValueError, VantageError):
        if b"CERTIFICATE" in content:
            loaded = pki.load_certificates(content)[0].public_key()
        else:
            loaded = serialization.load_pem_public_key(content)
    if not isinstance(loaded, ec.EllipticCurvePublicKey):
        raise error(
            Reason.KEY_INVALID,
            f"{path} is no public key or certificate of an audit log: give the one of 'audit export', or of the node",
        )
    return loaded


@command(audit, "show", "vantage audit show data/audit.log --event run.decided", local=True)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--event", default="", metavar="EVENT", help="Only this one, e.g. run.decided.")
@click.option("--after", type=click.DateTime(), help="Only from then on, local time.")
@click.option("--contains", default="", metavar="TEXT", help="Only lines in which this occurs, e.g. a run or a name.")
def show(call: Call, file: Path, event: str, after: datetime | None, contains: str) -> None:
    """Show a log, of a node or exported from a server, oldest first. Needs no server; verify it first."""
    from vantage.common import audit as log
    from vantage.common.errors import Reason, error

    since = after.astimezone(UTC) if after is not None else None

    def wanted(record: dict[str, Any]) -> bool:
        return (
            record.get("event") not in ("", None, log.CHECKPOINT)
            and event in ("", record["event"])
            and (since is None or datetime.fromisoformat(str(record["time"])) >= since)
            and (not contains or contains in str(record))
        )

    try:
        found = [each for each in log.records(file) if wanted(each)]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise error(
            Reason.AUDIT_LOG_DAMAGED, f"{file} holds lines that are no records: run 'vantage audit verify'"
        ) from None
    call.output.table(found, _LINES, none="no such lines")
