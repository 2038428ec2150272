"""Which versions of others' lists of keys were seen: a server cannot bring back an older one, not even later."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path

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
        # Another program may have seen more meanwhile.
        merged = self._read()
        merged[holder] = max(version, merged.get(holder, 0))
        self._versions = merged
        self._write()

    def __delitem__(self, holder: str) -> None:
        del self._versions[holder]
        self._write()

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

    def _write(self) -> None:
        try:
            replace_private(self._path, json.dumps(self._versions, sort_keys=True, indent=1))
        except OSError as problem:
            raise error(
                Reason.CONFIGURATION_INVALID, f"{self._path} cannot be written: {problem.strerror or problem}"
            ) from problem
