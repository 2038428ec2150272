"""A small file system that a test can fill; mounting it needs root."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    """A mounted file system.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @classmethod
    @contextmanager
    def mounted(cls, place: Path, megabytes: int = 12) -> Iterator[SmallDisk]:
        """Mount one at a new directory."""
        place.mkdir()
        options = f"size={megabytes}m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
        try:
            yield cls(place)
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)

    @staticmethod
    def possible() -> bool:
        """Whether this process may mount."""
        return os.geteuid() == 0

    def fill(self) -> None:
        """Leave no byte."""
        with self._ballast.open("ab") as file:
            while (free := shutil.disk_usage(self.path).free) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), free)
                except OSError as problem:
                    if problem.errno != errno.ENOSPC:
                        raise
                    # Somebody has written meanwhile: there is less to take.
                file.seek(0, os.SEEK_END)

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink()
