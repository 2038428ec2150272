"""A registry that answers what a test tells it to, byte for byte; a real one would look at its files first."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True)
class Answer:
    """An answer of HTTP.

    Attributes:
        status: of it.
        body: what is sent.
        headers: further ones.
        length: that is announced; that of the body unless given.
        pause: seconds between its bytes; 0 to send it at once.
    """

    status: int = 200
    body: bytes = b""
    headers: Sequence[str] = ()
    length: int | None = None
    pause: float = 0


@dataclass
class ScriptedRegistry:
    """Gives its answers in order, and the last of them again and again.

    Attributes:
        answers: what is given.
        asked: the heads of all requests.
        address: ``127.0.0.1:port``.
    """

    answers: list[Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    address: str = ""
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def answering(cls, *answers: Answer) -> AsyncIterator[Self]:
        """One that listens on a loopback port that the system picks."""
        made = cls(list(answers))
        server = await asyncio.start_server(made._accept, "127.0.0.1", 0)
        made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield made
        finally:
            server.close()
            for task in made._open:
                task.cancel()
            await asyncio.gather(*made._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            if (sized := re.search(r"^content-length: (\d+)", head, re.IGNORECASE | re.MULTILINE)) is not None:
                await reader.readexactly(int(sized[1]))  # whoever closes with something unread may take back the answer
            await self._write(writer, self.answers[0] if len(self.answers) == 1 else self.answers.pop(0))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def _write(writer: asyncio.StreamWriter, answer: Answer) -> None:
        length = len(answer.body) if answer.length is None else answer.length
        lines = [f"HTTP/1.1 {answer.status} X", "connection: close", f"content-length: {length}", *answer.headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        step = 1 if answer.pause else max(1, len(answer.body))
        for start in range(0, len(answer.body), step):
            writer.write(answer.body[start : start + step])
            await writer.drain()
            if answer.pause:
                await asyncio.sleep(answer.pause)
        await writer.drain()
