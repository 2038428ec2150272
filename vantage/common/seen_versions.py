"""Which versions of others' lists of keys were seen: a server cannot bring back an older one, not even later."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

import filelock

from vantage.common.errors import Reason, error
from vantage.common.files import replace_private


class SeenVersions(MutableMapping[str, int]):
    """Holder -> highest version that was seen; each change is in the file at once.

    Args:
        path: the file.

    Raises:
        ConfigurationError: it is not usable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._versions = self._read()

    def __getitem__(self, holder: str) -> int:
        return self._versions[holder]

    def __setitem__(self, holder: str, version: int) -> None:
        if self._versions.get(holder) == version:
            return
        with self._alone():
            merged = self._read()
            merged[holder] = max(version, merged.get(holder, 0))
            self._write(merged)

    def __delitem__(self, holder: str) -> None:
        with self._alone():
            merged = self._read()
            del merged[holder]
            self._write(merged)

    def __iter__(self) -> Iterator[str]:
        return iter(self._versions)

    def __len__(self) -> int:
        return len(self._versions)

    def _read(self) -> dict[str, int]:
        try:
            return {str(holder): int(version) for holder, version in json.loads(self._path.read_bytes()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as problem:
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"{self._path} cannot be read ({problem}): bring it back from a backup, or remove it and believe again "
                "what the server tells first",
            ) from problem

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Another program may have seen more meanwhile: what it writes must not be lost."""
        try:
            with filelock.FileLock(self._path.with_suffix(".lock"), mode=0o600):
                yield
        except OSError as problem:
            raise error(
                Reason.CONFIGURATION_INVALID, f"{self._path} cannot be written: {problem.strerror or problem}"
            ) from problem

    def _write(self, versions: dict[str, int]) -> None:
        replace_private(self._path, json.dumps(versions, sort_keys=True, indent=1))
        self._versions = versions
