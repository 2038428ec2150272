"""Texts that others wrote, before a person who decides by them."""

from __future__ import annotations

import unicodedata

import pytest

from vantage.common.text import revealed


@pytest.mark.parametrize(
    "code", [0x00, 0x0B, 0x0D, 0x1B, 0x85, 0xA0, 0xAD, 0x200B, 0x202E, 0x2028, 0x2800, 0x3164, 0xFE0F, 0xE0041, 0xE0101]
)
def test_what_nobody_sees_is_named(code: int) -> None:
    assert revealed(f"a{chr(code)}b") == f"a<U+{code:04X}>b"


def test_what_has_a_shape_stays() -> None:
    text = "\tfür 'Straße' ≤ 漢字 e\u0301"
    assert revealed(text) == text
    assert unicodedata.combining("\u0301")  # an accent is seen
