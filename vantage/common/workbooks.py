"""Workbooks that only look like those that are read."""

from __future__ import annotations

from pathlib import Path

_COMPOUND_FILE = bytes.fromhex("d0cf11e0a1b11ae1")
"""How files of Excel before 2007 begin, and workbooks of today that have a password ([MS-CFB], [MS-OFFCRYPTO])."""


def remedy_for(path: Path) -> str:
    """What to do with a workbook that cannot be read, as far as its first bytes tell; else empty."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(_COMPOUND_FILE))
    except OSError:
        return ""
    if begin == _COMPOUND_FILE:
        return ": it has a password, or is of Excel before 2007: save it as .xlsx without a password"
    return ""
