"""A hash-chained audit log: who asked what, what was decided, what ran, what left. Never content.

One JSON object per line. Each holds its position (``seq``, from 1), the SHA-256 of the line before (``prev``), the
time, the event and its fields. A *checkpoint* is a line whose ``signature`` is a JWS (ES256, RFC 7515) by the program's
key over position and chain head, so that a file that was rewritten as a whole is found out as well. The file alone is
enough to verify it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common.clock import Clock
from vantage.common.errors import Reason, error

GENESIS = "sha256:" + "0" * 64
"""``prev`` of the first line."""
CHECKPOINT = "checkpoint"
CHECKPOINT_EVERY = 1_000
"""Lines between checkpoints; one more is written when the log is closed."""
MAX_LINE = 65_536
_RESERVED = frozenset({"seq", "prev", "time", "event"})

Value = str | int | float | bool | None | list[str]


def line_hash(line: bytes) -> str:
    """Hash of a line as it stands in the file, without its line end."""
    return f"sha256:{hashlib.sha256(line).hexdigest()}"


class AuditLog:
    """Appends to an audit log. Safe to use from several threads.

    Args:
        path: the file; made with mode 0600 when missing, continued when it exists.
        key: signs the checkpoints.
        clock: source of the time.

    Raises:
        ConfigurationError: the last line of an existing file cannot be continued.
    """

    def __init__(self, path: Path, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._lock = threading.Lock()
        self._seq, self._head, self._since = _continue(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._file: IO[bytes] = os.fdopen(descriptor, "ab")

    @property
    def head(self) -> str:
        """Hash of the last line."""
        return self._head

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return self._seq

    def append(self, event: str, fields: Mapping[str, Value]) -> None:
        """Write one line; it is durable when this returns.

        Args:
            event: what happened, e.g. ``task.create``.
            fields: names and values; ``seq``, ``prev``, ``time`` and ``event`` are taken.
        """
        self.append_all([(event, fields)])

    def append_all(self, records: Iterable[tuple[str, Mapping[str, Value]]]) -> None:
        """Write a line for each (event, fields); all are durable when this returns, with one sync."""
        with self._lock:
            for event, fields in records:
                self._write(event, fields)
                if self._since >= CHECKPOINT_EVERY:
                    self._checkpoint()
            self._sync()

    def checkpoint(self) -> None:
        """Sign the log as it is; does nothing when the last line is a checkpoint already."""
        with self._lock:
            if self._since:
                self._checkpoint()
                self._sync()

    def change_key(self, key: ec.EllipticCurvePrivateKey) -> None:
        """Sign what is there, and whatever follows with another key."""
        with self._lock:
            if self._since:
                self._checkpoint()
                self._sync()
            self._key = key

    def close(self) -> None:
        """Sign and close."""
        self.checkpoint()
        self._file.close()

    def _checkpoint(self) -> None:
        claims = {"seq": self._seq + 1, "head": self._head}
        self._write(CHECKPOINT, {"signature": jwt.encode(claims, self._key, algorithm="ES256")})
        self._since = 0

    def _write(self, event: str, fields: Mapping[str, Value]) -> None:
        if taken := _RESERVED.intersection(fields):
            raise ValueError(f"reserved field names: {sorted(taken)}")
        record = {
            "seq": self._seq + 1,
            "prev": self._head,
            "time": self._clock.now().isoformat(timespec="microseconds"),
            "event": event,
            **fields,
        }
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        if len(line) > MAX_LINE:
            raise ValueError(f"an audit line has at most {MAX_LINE} bytes")
        self._file.write(line + b"\n")
        self._seq += 1
        self._since += 1
        self._head = line_hash(line)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def _continue(path: Path) -> tuple[int, str, int]:
    """Position, head and lines since the last checkpoint of an existing log; a torn last line is cut off."""
    if not path.exists():
        return 0, GENESIS, 0
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        # The process died in the middle of a write: the line was never acknowledged to anybody.
        os.truncate(path, whole)
    seq, head, since = 0, GENESIS, 0
    for line in content[:whole].splitlines():
        try:
            record = json.loads(line)
            seq = int(record["seq"])
            since = 0 if record["event"] == CHECKPOINT else since + 1
        except (ValueError, KeyError, TypeError):
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"the audit log {path} is damaged: run 'vantage audit verify {path}', keep the file, start a new one",
                path=str(path),
            ) from None
        head = line_hash(line)
    return seq, head, since


@dataclass
class Report:
    """What a verification found.

    Attributes:
        lines: how many lines the file has.
        checkpoints: how many of them are valid checkpoints.
        unsigned: how many lines follow the last valid checkpoint: these prove less.
        head: hash of the last line, to compare with a copy kept elsewhere.
        problems: what is wrong, in the order of the file; empty when the log is intact.
    """

    lines: int = 0
    checkpoints: int = 0
    unsigned: int = 0
    head: str = GENESIS
    problems: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(path: Path, *keys: ec.EllipticCurvePublicKey, noted_head: str = "", max_problems: int = 20) -> Report:
    """Verify an audit log: each line follows the one before, and each checkpoint is signed.

    Checks, per line: (1) it is a JSON object, (2) ``seq`` is one more than before, (3) ``prev`` is the hash of the line
    before, (4) a checkpoint's signature verifies and speaks of this position and head.

    Args:
        path: the file.
        keys: keys of the checkpoints, old and new; without any, check 4 is left out and no line counts as signed.
        noted_head: hash of a line that was noted earlier and must still be there: shows that the end was cut off.
        max_problems: stop after so many.
    """
    report = Report()
    expected = 1
    found_head = not noted_head or noted_head == GENESIS
    for number, line in enumerate(_lines(path), start=1):
        if len(report.problems) >= max_problems:
            break
        report.lines = number
        # (1)
        try:
            record = json.loads(line)
            seq, prev, event = int(record["seq"]), record["prev"], record["event"]
        except (ValueError, KeyError, TypeError):
            report.problems.append(f"line {number}: not an audit record")
            report.head = line_hash(line)
            expected += 1
            continue
        # (2)
        if seq != expected:
            report.problems.append(f"line {number}: position {seq} where {expected} is due: lines are missing or moved")
        # (3)
        if prev != report.head:
            report.problems.append(f"line {number}: does not follow the line before: that one or this was changed")
        # (4)
        if event == CHECKPOINT and keys:
            if any(_signed(record.get("signature"), key, seq, prev) for key in keys):
                report.checkpoints += 1
                report.unsigned = 0
            else:
                report.problems.append(f"line {number}: the checkpoint's signature is wrong")
        else:
            report.unsigned += 1
        report.head = line_hash(line)
        found_head = found_head or report.head == noted_head
        expected = seq + 1
    if not found_head and len(report.problems) < max_problems:
        report.problems.append("the line that was noted earlier is missing: the end was cut off, or lines were changed")
    return report


def records(path: Path) -> Iterator[dict[str, Value]]:
    """The records of a log, in order, unverified."""
    for line in _lines(path):
        yield json.loads(line)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


def _signed(signature: object, key: ec.EllipticCurvePublicKey, seq: int, head: object) -> bool:
    if not isinstance(signature, str):
        return False
    try:
        claims = jwt.decode(signature, key, algorithms=["ES256"], options={"verify_iat": False})
    except jwt.PyJWTError:
        return False
    return claims == {"seq": seq, "head": head}
