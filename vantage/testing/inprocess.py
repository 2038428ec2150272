"""An algorithm that the process executor calls inside the node: for tests of the node and for measuring its path."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.common.errors import Reason, VantageError, error
from vantage.node.door import Door, StoredResult

IN_PROCESS = True

_NUMBER = {"type": "number"}
_TEXT = {"type": "string"}


def _arguments(**properties: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


DECLARATION = {
    "schema": 1,
    "functions": {
        "echo": {"arguments": _arguments(value=_NUMBER)},
        "count": {"arguments": _arguments(), "data": [{"parameter": "table"}]},
        "hold": {"arguments": _arguments(gate=_TEXT)},
        "large": {"arguments": _arguments(size=_NUMBER)},
        "nested": {"arguments": _arguments(depth=_NUMBER)},
        "typed": {"arguments": _arguments(media_type=_TEXT)},
        "whisper": {"arguments": _arguments()},
        "talk": {"arguments": _arguments(lines=_NUMBER)},
        "nothing": {"arguments": _arguments()},
        "crash": {"arguments": _arguments()},
        "report": {"arguments": _arguments(reason=_TEXT)},
    },
}


class Gate:
    """Where a run waits until the test lets it go on.

    Attributes:
        entered: set when a run waits here.
        leave: lets it go.
        left: how the run left: "returned" or "cancelled".
        done: set when it has left.
        count: how often a run came here.
    """

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.left = ""
        self.done = asyncio.Event()
        self.count = 0


gates: defaultdict[str, Gate] = defaultdict(Gate)


async def echo(value: float) -> dict[str, float]:
    """The argument."""
    return {"value": value}


def count(table: Path) -> dict[str, int]:
    """How many rows a CSV file has."""
    return {"rows": len(table.read_text().splitlines()) - 1}


async def hold(gate: str) -> dict[str, str]:
    """Wait at a gate."""
    place = gates[gate]
    place.count += 1
    place.entered.set()
    try:
        await place.leave.wait()
        place.left = "returned"
    except asyncio.CancelledError:
        place.left = "cancelled"
        raise
    finally:
        place.done.set()
    return {"gate": gate}


async def large(size: float) -> bytes:
    """That many bytes."""
    return bytes(int(size))


async def nested(depth: float, door: Door) -> None:
    """Lists in lists, that deep, which is more than a parser may bear."""
    await _submit(door, "application/json", b"[" * int(depth) + b"]" * int(depth))


async def typed(media_type: str, door: Door) -> None:
    """A number, said to be of that type."""
    await _submit(door, media_type, b"1")


async def _submit(door: Door, media_type: str, content: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    await door.callbacks.result(StoredResult(media_type, content, len(content), digest))


async def whisper(door: Door) -> dict[str, str]:
    """What others can be told past the result: why not."""
    targets = {
        "peer": algorithm_pb.DialTarget(peer=algorithm_pb.PeerTarget(label="a")),
        "host": algorithm_pb.DialTarget(host=algorithm_pb.HostTarget(host="example.org", port=443)),
    }
    said = {}
    for name, target in targets.items():
        try:
            (await door.callbacks.dial(target)).close()
        except VantageError as problem:
            said[name] = problem.message
    try:
        await anext(door.callbacks.listen("a"))
    except VantageError as problem:
        said["listen"] = problem.message
    return said


async def talk(lines: float, door: Door) -> dict[str, int]:
    """Print that many lines, and report progress after each."""
    for number in range(int(lines)):
        door.line(f"line {number}")
        door.callbacks.progress((number + 1) / lines, f"step {number}")
    return {"lines": int(lines)}


async def nothing() -> None:
    """End without an answer."""


async def crash() -> None:
    """Fail without a word to the researcher."""
    raise RuntimeError("secret value 42")


async def report(reason: str) -> None:
    """Fail with a reason of its own."""
    raise error(Reason[reason], "too few rows for an answer")
