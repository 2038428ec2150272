"""``vantage audit verify`` and ``show`` on files alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.cli.conftest import Run
from vantage.common import pki
from vantage.common.audit import AuditLog
from vantage.common.clock import ManualClock

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Station:
    """A node's log across a renewal, with the certificate before it and the public key after it."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "audit.log"
        self.old, self.new = directory / "old-cert.pem", directory / "new-key.pem"
        clock = ManualClock(NOW)
        first, second = pki.create_key(), pki.create_key()
        self.old.write_text(pki.to_pem(pki.self_signed(first, "organizations/clara", NOW)))
        self.new.write_bytes(second.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        log = AuditLog(self.log, first, clock)
        log.append("node.started", {"node": "organizations/clara/nodes/clara-1"})
        log.append("run.decided", {"run": "tasks/1/runs/1", "decision": "allowed"})
        log.change_key(second)
        clock.advance(timedelta(days=1))
        log.append("run.decided", {"run": "tasks/2/runs/2", "decision": "refused", "reason": "IMAGE_UNSIGNED"})
        log.close()


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path)


def test_a_log_with_a_renewal_is_verified_with_both_keys(station: Station, run: Run) -> None:
    both = run("audit", "verify", station.log, "--key", station.old, "--key", station.new, "-o", "json")
    report = json.loads(both.stdout)
    assert (both.exit_code, report["lines"], report["checkpoints"], report["unsigned"]) == (0, 5, 2, 0)
    one = run("audit", "verify", station.log, "--key", station.new)
    assert (one.exit_code, "line 3: the checkpoint's signature is wrong" in one.stderr) == (2, True)
    junk = station.log.with_name("junk.pem")
    junk.write_text("-----BEGIN CERTIFICATE-----\n")
    assert run("audit", "verify", station.log, "--key", junk).exit_code == 2


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([0, 2, 3, 4], "lines are missing or moved"),
        ([0, 2, 1, 3, 4], "lines are missing or moved"),
        ([0, 1, 1, 2, 3, 4], "lines are missing or moved"),
        ([1, 2, 3, 4], "lines are missing or moved"),
    ],
)
def test_missing_moved_and_repeated_lines_are_found(station: Station, run: Run, order: list[int], said: str) -> None:
    lines = station.log.read_bytes().splitlines(keepends=True)
    station.log.write_bytes(b"".join(lines[each] for each in order))
    done = run("audit", "verify", station.log)
    assert (done.exit_code, said in done.stderr) == (2, True)


def test_a_changed_line_is_found(station: Station, run: Run) -> None:
    station.log.write_bytes(station.log.read_bytes().replace(b"refused", b"allowed"))
    done = run("audit", "verify", station.log)
    assert (done.exit_code, "that one or this was changed" in done.stderr) == (2, True)


def test_an_end_that_was_cut_off_is_found_by_the_head_that_was_noted(station: Station, run: Run) -> None:
    head = json.loads(run("audit", "verify", station.log, "-o", "json").stdout)["head"]
    assert run("audit", "verify", station.log, "--head", head).exit_code == 0
    lines = station.log.read_bytes().splitlines(keepends=True)
    station.log.write_bytes(b"".join(lines[:3]))
    assert run("audit", "verify", station.log).exit_code == 0  # by itself, that cannot be seen
    done = run("audit", "verify", station.log, "--head", head)
    assert (done.exit_code, "the end was cut off" in done.stderr) == (2, True)


def test_what_happened_is_shown(station: Station, run: Run) -> None:
    shown = json.loads(run("audit", "show", station.log, "-o", "json").stdout)
    assert [each["event"] for each in shown] == ["node.started", "run.decided", "run.decided"]
    table = run("audit", "show", station.log, "--contains", "tasks/2").stdout
    assert "reason=IMAGE_UNSIGNED" in table
    assert "tasks/1" not in table
    assert len(json.loads(run("audit", "show", station.log, "--event", "run.decided", "-o", "json").stdout)) == 2
    after = run("audit", "show", station.log, "--after", "2026-03-02T00:00:00", "-o", "json").stdout
    assert [each["run"] for each in json.loads(after)] == ["tasks/2/runs/2"]
    station.log.write_bytes(station.log.read_bytes() + b"[]\n")
    done = run("audit", "show", station.log)
    assert (done.exit_code, "vantage audit verify" in done.stderr) == (2, True)
