"""One end of a connection over a relay, as a process: raw bytes, or a link with TLS as between two nodes.

Takes its task as JSON on the command line and prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from vantage.common.rpc import ServerTrust, open_channel
from vantage.node.tunnels.channel import Budget, Channel
from vantage.node.tunnels.link import Link, Opening, Parties
from vantage.node.tunnels.secure import SecureWire, tls_context
from vantage.node.tunnels.wire import METHOD, RelayWire

JOB = "tasks/bench"


@dataclass(frozen=True)
class End:
    """What one end does.

    Attributes:
        metadata: of the call: ticket, or pair for the bare relay.
        mode: "raw" or "tls".
        role: "send", "receive", "ping", "pong" or "stall" (opens, and never reads).
        size: bytes of each write.
        count: writes, or round trips.
        directory: holds certificates and keys by role.
    """

    address: str
    metadata: tuple[str, str]
    mode: str
    role: str
    size: int
    count: int
    directory: str = ""
    certificate: str = ""

    def dumps(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @property
    def opens(self) -> bool:
        """Which side of the pair it is."""
        return self.role in ("send", "ping")


class Raw:
    """Messages as they are."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def write(self, data: bytes) -> None:
        await self._call.write(data)

    async def read(self) -> bytes:
        message = await self._call.read()
        return message if isinstance(message, bytes) else b""

    async def finish(self) -> None:
        await self._call.done_writing()


async def run(end: End) -> dict[str, float]:
    """Do it; returns seconds and bytes."""
    trust = ServerTrust.from_pem(Path(end.certificate).read_bytes()) if end.certificate else None  # noqa: ASYNC240
    if end.mode == "raw":
        async with open_channel(end.address, trust) as channel:
            call: Any = channel.stream_stream(METHOD)(metadata=(end.metadata,))
            await call.initial_metadata()
            return await work(end, Raw(call))
    wire = await RelayWire.open(end.address, trust, end.metadata[1].removeprefix("Bearer "))
    home = Path(end.directory)
    mine, other = ("opens", "answers") if end.opens else ("answers", "opens")
    context = tls_context(
        home / f"{mine}.pem", home / f"{mine}.key", (home / "ca" / "ca-cert.pem").read_text(), server_side=not end.opens
    )
    secure = await SecureWire.handshake(wire, context, lambda _certificate: None, server_side=not end.opens)
    openings: asyncio.Queue[Opening] = asyncio.Queue()
    parties = Parties("pair", JOB, "image", mine, other, other)
    link = Link(parties, Budget(64 * 1024 * 1024), lambda _link, opening: openings.put_nowait(opening))
    carrying = asyncio.create_task(link.carry(secure))
    stream: Channel
    if end.opens:
        stream = link.open("bench", 10)
        await stream.opened
    else:
        stream = (await openings.get()).channel
        link.accept(stream)
    result = await work(end, stream)
    if end.opens:
        await link.close(5.0)
    await asyncio.gather(carrying, return_exceptions=True)
    return result


async def work(end: End, stream: Raw | Channel) -> dict[str, float]:
    """Send, receive, or both in turn."""
    data = bytes(end.size)
    began, total = time.perf_counter(), 0
    match end.role:
        case "send":
            for _ in range(end.count):
                await stream.write(data)
            await stream.finish()
            while await stream.read():
                pass
        case "receive":
            # Over a relay the end is seen when both sides have ended: bytes are counted instead.
            first = total = len(await stream.read())
            began = time.perf_counter()
            while total < end.size * end.count:
                total += len(await stream.read())
            seconds = time.perf_counter() - began
            total -= first
            await stream.finish()
            while await stream.read():
                pass
            return {"seconds": seconds, "bytes": total}
        case "ping":
            times = []
            for _ in range(end.count):
                began = time.perf_counter()
                await stream.write(data)
                left = end.size
                while left:
                    left -= len(await stream.read())
                times.append(time.perf_counter() - began)
            await stream.finish()
            while await stream.read():
                pass
            times.sort()
            return {"seconds": times[len(times) // 2], "bytes": end.size}
        case "pong":
            while total < end.size * end.count:
                received = await stream.read()
                total += len(received)
                await stream.write(received)
            await stream.finish()
            while await stream.read():
                pass
    return {"seconds": time.perf_counter() - began, "bytes": total}


async def start(end: End) -> asyncio.subprocess.Process:
    """Begin an end as a process."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.benchlib.relay_end", end.dumps(), stdout=asyncio.subprocess.PIPE
    )


async def result(process: asyncio.subprocess.Process) -> dict[str, float]:
    """Wait for what it found out."""
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("an end of a relayed connection failed")
    found: dict[str, float] = json.loads(output)
    return found


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(uvloop.run(run(End(**{**given, "metadata": tuple(given["metadata"])})))))
