"""Texts that others wrote, shown on a terminal."""

from __future__ import annotations

import re
import unicodedata

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


def revealed(text: str) -> str:
    """A line that somebody reads before they sign it: what shows as nothing, or as an ordinary space, is named.

    ``<U+200B>`` is such a name. What is not ASCII and has a shape of its own stays as it is.
    """
    return _NOT_PLAIN.sub(_named, text)


_NOT_PLAIN = re.compile(r"[^\t\x20-\x7e]")
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
_BLANK = frozenset(
    chr(code)
    for each in (
        # Those of Unicode's Default_Ignorable_Code_Point that are letters or marks: fillers and selectors of variants,
        # which engines of JavaScript take for names, and which carry whole programs that nobody sees.
        range(0x034F, 0x0350),
        range(0x115F, 0x1161),
        range(0x17B4, 0x17B6),
        range(0x180B, 0x1810),
        range(0x3164, 0x3165),
        range(0xFE00, 0xFE10),
        range(0xFFA0, 0xFFA1),
        range(0xE0100, 0xE01F0),
        range(0x2800, 0x2801),  # a pattern of Braille without dots
    )
    for code in each
)


def _named(found: re.Match[str]) -> str:
    character = found[0]
    unseen = character in _BLANK or unicodedata.category(character) in _UNSEEN
    return f"<U+{ord(character):04X}>" if unseen else character


def escaped(document: str) -> str:
    """A JSON document, in which the same characters are written as escapes: it means what it meant."""
    return document.translate(_ESCAPED)
