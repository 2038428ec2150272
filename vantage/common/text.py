"""Texts that others wrote, shown on a terminal."""

from __future__ import annotations

_KEPT = "\n\t"
_REPLACEMENT = "�"
_BIDI = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""Marks that make text look like another one (CVE-2021-42574)."""
_CODES = [code for code in [*range(0x20), *range(0x7F, 0xA0), *_BIDI, 0x2028, 0x2029] if chr(code) not in _KEPT]
_REPLACED = dict.fromkeys(_CODES, _REPLACEMENT)
_ESCAPED = {code: f"\\u{code:04x}" for code in _CODES}


def printable(text: str) -> str:
    """The text without the control characters by which it could steer a terminal or hide what it says."""
    return text.translate(_REPLACED)


def one_line(text: str) -> str:
    """The same as one line: whoever wrote a part of it adds none that says something else."""
    return printable(text).replace("\n", _REPLACEMENT)


def escaped(document: str) -> str:
    """A JSON document, in which the same characters are written as escapes: it means what it meant."""
    return document.translate(_ESCAPED)
