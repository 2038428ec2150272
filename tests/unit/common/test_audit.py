from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vantage.common import audit, pki
from vantage.common.audit import AuditLog, verify
from vantage.common.clock import ManualClock
from vantage.common.errors import ConfigurationError

KEY = pki.create_key()
CLOCK = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    writer = AuditLog(path, KEY, CLOCK)
    for number in range(20):
        writer.append("task.create", {"who": "users/ada", "task": f"tasks/{number}", "allowed": True})
    writer.close()
    return path


def test_an_untouched_log_is_intact(log: Path) -> None:
    report = verify(log, KEY.public_key())
    assert report.intact
    assert (report.lines, report.checkpoints, report.unsigned) == (21, 1, 0)
    assert log.stat().st_mode & 0o777 == 0o600


def swap(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[4], lines[3], *lines[5:]]


def change(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[3].replace(b"ada", b"eve"), *lines[4:]]


def drop(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], *lines[4:]]


def repeat(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[3], lines[3], *lines[4:]]


def behead(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def garble(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"{", *lines[4:]]


@pytest.mark.parametrize("damage", [swap, change, drop, repeat, behead, garble])
def test_damage_is_found(log: Path, damage: Callable[[list[bytes]], list[bytes]]) -> None:
    log.write_bytes(b"\n".join(damage(log.read_bytes().splitlines())) + b"\n")
    assert not verify(log, KEY.public_key()).intact
    assert not verify(log).intact


def test_a_log_rewritten_as_a_whole_fails_at_its_checkpoint(log: Path) -> None:
    lines, head = [], audit.GENESIS
    for line in log.read_bytes().splitlines():
        record = json.loads(line)
        if "who" in record:
            record["who"] = "users/eve"
        record["prev"] = head
        lines.append(json.dumps(record).encode())
        head = audit.line_hash(lines[-1])
    log.write_bytes(b"\n".join(lines) + b"\n")
    assert verify(log).intact
    assert verify(log, KEY.public_key()).problems == ["line 21: the checkpoint's signature is wrong"]


def test_a_checkpoint_of_another_key_is_found(log: Path) -> None:
    assert not verify(log, pki.create_key().public_key()).intact


def test_what_follows_the_last_checkpoint_is_said_to_be_unsigned(log: Path) -> None:
    writer = AuditLog(log, KEY, CLOCK)
    writer.append("task.cancel", {})
    report = verify(log, KEY.public_key())
    writer.close()
    assert report.intact
    assert report.unsigned == 1


def test_a_restart_continues_the_chain_and_drops_a_torn_line(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b'{"seq":22,"prev":"sha')
    writer = AuditLog(log, KEY, CLOCK)
    writer.append("task.cancel", {"who": "users/ada"})
    writer.close()
    report = verify(log, KEY.public_key())
    assert report.intact
    assert report.lines == 23


def test_a_damaged_log_is_not_continued(log: Path) -> None:
    log.write_bytes(b"junk\n")
    with pytest.raises(ConfigurationError, match="audit verify"):
        AuditLog(log, KEY, CLOCK)


def test_reserved_fields_are_refused(tmp_path: Path) -> None:
    writer = AuditLog(tmp_path / "log", KEY, CLOCK)
    with pytest.raises(ValueError, match="reserved"):
        writer.append("x", {"seq": 1})
    writer.close()
