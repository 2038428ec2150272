"""JSON as the standard has it (RFC 8259), for what must mean the same to everybody who reads it.

Python's reader takes more: of a key that is there twice the last one, ``NaN`` and ``Infinity``, and infinity for
numbers that are too large (``1e999``).
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from vantage.common.unique_keys import unique_keys

_LARGEST_DIGITS = 308
"""Whole numbers of so many digits are finite for readers who take them for floating point."""


class NotANumberError(ValueError):
    """Something in the place of a number is none in JSON, or too large for one."""


def loads(text: str | bytes) -> Any:
    """Read a document.

    Raises:
        RepeatedKeyError: an object has a key twice.
        NotANumberError: NaN, an infinity, or a number beyond 1.8e308.
        ValueError: it is not JSON; the two above are of this kind.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=unique_keys, parse_constant=_constant, parse_float=_float, parse_int=_int)


def _constant(name: str) -> NoReturn:
    raise NotANumberError(f"{name}, which JSON does not have: give null, or leave it out")


def _int(text: str) -> int:
    if len(text) > _LARGEST_DIGITS:
        _float(text)
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NotANumberError(f"{text[:20]}, which is too large for a number")
    return number
