"""An algorithm whose executions are counted in a file, which outlives every process: for tests that kill things.

A run that shall wait connects to a ``Gate``, a socket of the test, which is so told that it runs, and that it died.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.node.door import ByteStream, Door

IN_PROCESS = True
PATIENCE = 30.0

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}


def _declared(**properties: dict[str, str]) -> dict[str, Any]:
    properties = {"ledger": _TEXT, "key": _TEXT, **properties}
    return {
        "arguments": {
            "type": "object",
            "properties": properties,
            "required": sorted(properties),
            "additionalProperties": False,
        }
    }


DECLARATION: dict[str, Any] = {
    "schema": 1,
    "functions": {
        "count": _declared(),
        "fail": _declared(),
        "hold": _declared(gate=_TEXT),
        "large": _declared(size=_NUMBER),
        "padded": _declared(padding=_TEXT),
        "linger": _declared(seconds=_NUMBER),
        "delegate": _declared(whom=_TEXT, seconds=_NUMBER),
        "ask": _declared(whom=_TEXT, node=_TEXT, gate=_TEXT, after=_NUMBER),
        "meet": _declared(peer=_TEXT),
    },
}


class Execution(NamedTuple):
    """One time that a function was called: for which key, in which run, by which process."""

    key: str
    run: str
    pid: int


class Ledger:
    """What was executed, a line for each time.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, key: str, run: str) -> None:
        """An execution begins. Whole lines, whoever writes at the same time; survives the death of the process."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, f"{key} {run} {os.getpid()}\n".encode())
        finally:
            os.close(descriptor)

    def all(self) -> list[Execution]:
        """Every execution, in the order in which they began."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [Execution(key, run, int(pid)) for key, run, pid in (line.rsplit(" ", 2) for line in lines)]

    def executions(self) -> Counter[str]:
        """How often each run was executed."""
        return Counter(each.run for each in self.all())

    def of(self, key: str) -> list[str]:
        """The run of each execution for a key."""
        return [each.run for each in self.all() if each.key == key]


class Gate:
    """Where runs wait until the test lets them go on.

    Attributes:
        path: of the socket; the argument of ``hold`` and ``ask``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inside: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Condition()
        self._open = False
        self._gone = 0

    @classmethod
    @asynccontextmanager
    async def at(cls, directory: Path) -> AsyncIterator[Self]:
        """A gate with its socket in a directory, whose path must be short."""
        gate = cls(directory / f"{uuid.uuid4().hex[:12]}.gate")
        server = await asyncio.start_unix_server(gate._enter, gate.path)
        try:
            yield gate
        finally:
            gate.open()
            server.close()

    async def entered(self, count: int = 1) -> None:
        """Wait until so many executions have come here, those that have died included.

        Raises:
            TimeoutError: they have not come.
        """
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: len(self._inside) >= count)

    def prompt(self) -> None:
        """Let who waits print and report progress once more."""
        for writer in self._inside:
            writer.write(b"?")

    def open(self) -> None:
        """Let go who waits, and whoever comes later."""
        self._open = True
        for writer in self._inside:
            writer.close()

    async def left(self, count: int = 1) -> None:
        """Wait until so many executions have left, or died.

        Raises:
            TimeoutError: they have not.
        """
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: self._gone >= count)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._changed:
            self._inside.append(writer)
            self._changed.notify_all()
        if self._open:
            writer.close()
        with contextlib.suppress(OSError):
            await reader.read()
        async with self._changed:
            self._gone += 1
            self._changed.notify_all()
        writer.close()


async def count(ledger: str, key: str, door: Door) -> dict[str, str]:
    """Answer at once."""
    return _begin(ledger, key, door)


async def fail(ledger: str, key: str, door: Door) -> None:
    """Answer nothing."""
    _begin(ledger, key, door)
    raise RuntimeError("as the test has asked")


async def hold(ledger: str, key: str, gate: str, door: Door) -> dict[str, str]:
    """Wait at a gate; print and report progress now and whenever the gate asks."""
    answer = _begin(ledger, key, door)
    reader, writer = await asyncio.open_unix_connection(gate)
    try:
        asked = True
        while asked:
            door.line("at the gate")
            door.callbacks.progress(0.5, "at the gate")
            asked = bool(await reader.read(1))
    finally:
        writer.close()
    return answer


async def linger(ledger: str, key: str, seconds: float, door: Door) -> dict[str, str]:
    """Be at work for a while."""
    answer = _begin(ledger, key, door)
    await asyncio.sleep(seconds)
    return answer


async def large(ledger: str, key: str, size: float, door: Door) -> bytes:
    """That many bytes, which differ from megabyte to megabyte."""
    _begin(ledger, key, door)
    return content(int(size))


async def padded(ledger: str, key: str, padding: str, door: Door) -> dict[str, str]:
    """For arguments of any size."""
    return {**_begin(ledger, key, door), "padding": str(len(padding))}


async def ask(
    ledger: str, key: str, whom: str, node: str, gate: str, after: float, door: Door
) -> dict[str, list[dict[str, str]]]:
    """Ask another organization to wait at the gate, and answer what it answered."""
    _begin(ledger, key, door)
    return await _ask(door, whom, "hold", int(after), node, ledger=ledger, key=f"{key}/below", gate=gate)


async def delegate(ledger: str, key: str, whom: str, seconds: float, door: Door) -> dict[str, list[dict[str, str]]]:
    """Ask another organization to linger, and answer what it answered."""
    _begin(ledger, key, door)
    return await _ask(door, whom, "linger", ledger=ledger, key=f"{key}/below", seconds=seconds)


async def _ask(
    door: Door, whom: str, function: str, after: int = 0, node: str = "", **given: Any
) -> dict[str, list[dict[str, str]]]:
    request = pb.RunSubtaskRequest(request_id=str(uuid.uuid4()), function=function, after_sequence=after)
    arguments = json.dumps(given).encode()
    payload = types_pb2.Payload(media_type="application/json", sealing=types_pb2.SEALING_NONE, inline=arguments)
    request.targets.add(organization=f"organizations/{whom}", node=node, arguments=payload)
    answers: dict[str, dict[str, str]] = {}
    async with aclosing(door.callbacks.subtask(request)) as events:
        async for event in events:
            # A task that had ended when its node attached again has its results in the snapshot alone.
            ended = [event.run_finished.run] if event.HasField("run_finished") else event.snapshot.task.runs
            answers |= {run.name: json.loads(run.result.inline) for run in ended if run.HasField("result")}
    return {"answers": list(answers.values())}


async def meet(ledger: str, key: str, peer: str, door: Door) -> dict[str, str]:
    """Say hello to a peer that calls, or, when one is named, call it."""
    _begin(ledger, key, door)
    if peer:
        stream = await door.callbacks.dial(pb.DialTarget(peer=pb.PeerTarget(peer=peer, label="hello")))
        said = await _all_of(stream)
        await stream.finish()
        return {"said": said.decode()}
    async with aclosing(door.callbacks.listen("hello")) as calls:
        async for call in calls:
            if call.connection:
                stream = await door.callbacks.dial(
                    pb.DialTarget(incoming=pb.IncomingTarget(connection=call.connection))
                )
                await stream.write(b"hello")
                await stream.finish()
                await _all_of(stream)
                break
    return {"said": "nothing"}


async def _all_of(stream: ByteStream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


def content(size: int) -> bytes:
    """The answer of ``large``."""
    block = 1024 * 1024
    return b"".join(bytes([number % 251]) * min(block, size - at) for number, at in enumerate(range(0, size, block)))


def _begin(ledger: str, key: str, door: Door) -> dict[str, str]:
    Ledger(Path(ledger)).note(key, door.context.run)
    (door.scratch / "note").write_text(key)  # a file that must not be left over
    return {"key": key}
