"""Wires in memory, which a test cuts, slows down or tampers with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vantage.common.errors import Reason, error


class Pipe:
    """One direction. Holds a few messages: whoever sends more waits.

    Attributes:
        spoil: what becomes of a message on its way; an empty list drops it, several repeat or add.
        passed: what went through, as it was sent.
    """

    def __init__(self, cut_after: int | None = None) -> None:
        self.cut = asyncio.Event()
        self.spoil: Callable[[bytes], list[bytes]] = lambda data: [data]
        self.passed: list[bytes] = []
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(2)
        self._left = cut_after

    async def put(self, data: bytes) -> None:
        if self._left == 0:
            self.cut.set()
        if self.cut.is_set():
            raise lost()
        if self._left is not None:
            self._left -= 1
        self.passed.append(data)
        for each in self.spoil(data):
            await self._until_cut(self._queue.put(each))

    async def get(self) -> bytes:
        if not self._queue.empty():
            return self._queue.get_nowait()  # what passed before the cut arrives
        found: bytes = await self._until_cut(self._queue.get())
        return found

    async def _until_cut(self, coroutine: object) -> bytes:
        assert asyncio.iscoroutine(coroutine)
        task, cut = asyncio.ensure_future(coroutine), asyncio.ensure_future(self.cut.wait())
        try:
            await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                result: bytes = task.result()
                return result
            raise lost()
        finally:
            task.cancel()
            cut.cancel()


class MemoryWire:
    """Keeps ``Wire``."""

    def __init__(self, outgoing: Pipe, incoming: Pipe) -> None:
        self.outgoing = outgoing
        self.incoming = incoming
        self.closed = False

    async def send(self, data: bytes) -> None:
        await self.outgoing.put(bytes(data))

    async def receive(self) -> bytes:
        return await self.incoming.get()

    async def close(self) -> None:
        self.closed = True
        self.outgoing.cut.set()
        self.incoming.cut.set()


def wires(cut_after: int | None = None) -> tuple[MemoryWire, MemoryWire]:
    """Two ends; with ``cut_after`` it breaks when the first end sends one message more than that."""
    there, back = Pipe(cut_after), Pipe()
    return MemoryWire(there, back), MemoryWire(back, there)


def lost() -> Exception:
    return error(Reason.RELAY_PEER_LOST, "cut by the test")
