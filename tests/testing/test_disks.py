"""A disk for tests is full in the end, whoever else writes to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vantage.testing.disks import SmallDisk


@pytest.mark.skipif(not SmallDisk.possible(), reason="mounts, which needs root")
def test_it_is_filled_while_somebody_else_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = shutil.disk_usage
    with SmallDisk.mounted(tmp_path / "disk", megabytes=1) as disk:
        other = disk.path / "other"

        def outdated(path: Path) -> object:
            found = measured(path)
            if not other.exists():
                other.write_bytes(bytes(100_000))
            return found

        monkeypatch.setattr(shutil, "disk_usage", outdated)
        disk.fill()
        assert other.exists()
        assert measured(disk.path).free == 0
        disk.free()
        assert measured(disk.path).free > 0
