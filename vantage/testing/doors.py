"""An algorithm that lends its door to the test: what a run may ask its node, asked by the test itself."""

from __future__ import annotations

import asyncio
from typing import Any

from vantage.node.door import Door

IN_PROCESS = True

DECLARATION: dict[str, Any] = {
    "schema": 1,
    "functions": {
        "lend": {
            "arguments": {
                "type": "object",
                "properties": {"name": {"type": "string"}},
                "required": ["name"],
                "additionalProperties": False,
            }
        }
    },
}


class Lent:
    """A door that a run has lent, or will lend.

    Attributes:
        door: done when the run has begun.
        back: lets the run end.
    """

    def __init__(self) -> None:
        self.door: asyncio.Future[Door] = asyncio.get_running_loop().create_future()
        self.back = asyncio.Event()


_lent: dict[str, Lent] = {}


def lent(name: str) -> Lent:
    """What the run with this argument lends."""
    if name not in _lent:
        _lent[name] = Lent()
    return _lent[name]


def forget() -> None:
    """For the end of a test."""
    _lent.clear()


async def lend(name: str, door: Door) -> dict[str, str]:
    """Lend the door until it is given back."""
    mine = lent(name)
    mine.door.set_result(door)
    await mine.back.wait()
    return {"name": name}
