"""Folders of a run with what it is given of its datasets."""

from __future__ import annotations

from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make the folder of a parameter, below one for all of them.

    Both are open to every user, since the container's is another one; the directory of the run above them is closed to
    all but the node's.

    Raises:
        OSError: it exists, or there is no room.
    """
    folder.mkdir(parents=True)
    for each in (folder.parent, folder):
        each.chmod(0o755)  # whatever the umask is
