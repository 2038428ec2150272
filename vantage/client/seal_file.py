"""The secret keys that open answers: an identity file of ``age``, the newest key first.

With a passphrase it is what ``age --passphrase`` makes of such a file, which ``age --identity`` takes as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vantage.common import sealing
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.files import replace_private


@dataclass(frozen=True)
class SealKey:
    """A key that opens answers.

    Attributes:
        recipient: its public half, ``age1...``.
        created: when it was made; None when its file does not say.
        newest: whether new answers are sealed to it.
    """

    recipient: str
    created: datetime | None
    newest: bool


@dataclass(frozen=True)
class _Secret:
    identity: str
    created: str


class SealFile:
    """The file.

    Args:
        path: where it is.
        clock: the time.
        passphrase: asked for the passphrase, and only when it has one; None when nobody knows it.
    """

    def __init__(self, path: Path, clock: Clock, passphrase: Callable[[], bytes | None]) -> None:
        self._path = path
        self._clock = clock
        self._passphrase = passphrase

    def create(self, passphrase: bytes | None) -> None:
        """Begin with one new key, whatever was there."""
        self._write([self._secret()], passphrase)

    def identities(self) -> list[str]:
        """The secret keys, the newest first.

        Raises:
            VantageError: the file is not usable.
        """
        return [each.identity for each in self._read()[0]]

    def keys(self) -> list[SealKey]:
        """Their public halves, the newest first."""
        return [
            SealKey(sealing.recipient_of(each.identity), _moment(each.created), position == 0)
            for position, each in enumerate(self._read()[0])
        ]

    def rotate(self) -> str:
        """Put a new key first, and return its public half."""
        before, passphrase = self._read()
        secrets = [self._secret(), *before]
        self._write(secrets, passphrase)
        return sealing.recipient_of(secrets[0].identity)

    def revoke(self, recipient: str) -> str:
        """Remove a key; when it was the newest, a new one takes its place. Returns the public half of the newest.

        Raises:
            NotFoundError: there is none like that.
        """
        wanted = sealing.check_recipient(recipient)
        secrets, passphrase = self._read()
        rest = [each for each in secrets if sealing.recipient_of(each.identity) != wanted]
        if len(rest) == len(secrets):
            raise error(Reason.NOT_FOUND, f"there is no key {wanted} here: see 'vantage key list'")
        if not rest or rest[0] != secrets[0]:
            rest.insert(0, self._secret())
        self._write(rest, passphrase)
        return sealing.recipient_of(rest[0].identity)

    def _secret(self) -> _Secret:
        return _Secret(sealing.create_identity(), f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ}")

    def _read(self) -> tuple[list[_Secret], bytes | None]:
        """The keys, and the passphrase that they have."""
        check_private(self._path)
        passphrase = None
        try:
            content = self._path.read_bytes()
            if sealing.is_sealed(content):
                passphrase = self._passphrase()
                content = self._opened(content, passphrase)
            text = content.decode()
            sealing.read_identities(text)
        except (OSError, UnicodeDecodeError) as problem:
            raise broken(f"{self._path} cannot be read: {problem}") from problem
        found, created = [], ""
        for line in (each.strip() for each in text.splitlines()):
            if line.startswith("# created: "):
                created = line.removeprefix("# created: ")
            elif line and not line.startswith("#"):
                found.append(_Secret(line, created))
                created = ""
        return found, passphrase

    def _opened(self, content: bytes, passphrase: bytes | None) -> bytes:
        if passphrase is None:
            raise error(Reason.KEY_INVALID, f"{self._path} has a passphrase: give it", path=str(self._path))
        try:
            return sealing.unseal_with_passphrase(content, passphrase)
        except VantageError as problem:
            raise error(problem.reason, f"{self._path}: {problem.message}", path=str(self._path)) from None

    def _write(self, secrets: Sequence[_Secret], passphrase: bytes | None) -> None:
        lines = ["# vantage: keys that open answers, the newest first; 'age -d -i' takes this file"]
        for each in secrets:
            lines += [
                f"# created: {each.created}",
                f"# public key: {sealing.recipient_of(each.identity)}",
                each.identity,
            ]
        text = "\n".join(lines) + "\n"
        replace_private(
            self._path, text if passphrase is None else sealing.seal_with_passphrase(text.encode(), passphrase)
        )


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def check_private(path: Path) -> None:
    """See that only its owner can read a file.

    Raises:
        ConfigurationError: others can, or nobody.
    """
    try:
        mode = path.stat().st_mode
    except OSError as problem:
        raise broken(f"{path} cannot be read: {problem.strerror}") from problem
    if os.name == "posix" and mode & 0o077:
        raise broken(f"{path} can be read by others: run 'chmod 600 {path}', and think of who may have read it")


def broken(why: str) -> VantageError:
    """A file of the keys is not as it must be."""
    return error(Reason.CONFIGURATION_INVALID, why)
