"""Programs that the bench of payloads starts: our client, and the ceiling's server and client.

The ceiling is a bare stream of raw messages of the same size: nothing is stored, checked or authenticated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import uvloop

from vantage.client import AsyncClient
from vantage.client.models import Content
from vantage.client.payloads import Payloads
from vantage.common import sealing
from vantage.common.payload_frames import CHUNK_SIZE
from vantage.common.rpc import ServerTrust, open_channel
from vantage.common.sealed_file import seal_file
from vantage.server.certificate import CERTIFICATE_FILE, KEY_FILE, create_certificate, fingerprint

_UP, _DOWN = "/bench.Ceiling/Up", "/bench.Ceiling/Down"


async def ours(address: str, data: Path, user: str, password: str, source: Path, target: Path) -> None:
    """Upload a file and download it again, as it is and sealed; prints seconds, and peaks of memory before and after.

    Files are sealed as client and node do it, before the transfer, and opened as the client does it, while they arrive.
    """
    identity = sealing.create_identity()
    sealed = target.with_suffix(".sealed")

    def seal() -> str:
        with source.open("rb") as plain:
            return seal_file(plain, sealed, [sealing.recipient_of(identity)])[0]

    async with AsyncClient.connect(address, fingerprint=fingerprint(data)) as client:
        await client.auth.login(user, password)
        payloads = Payloads(client._caller)
        figures: dict[str, float] = {"before": peak_memory()}
        for way in ("", " sealed"):
            began = time.perf_counter()
            digest = await asyncio.to_thread(seal) if way else None
            packed = await payloads.pack(sealed if way else source, "application/octet-stream", digest=digest)
            figures[f"up{way}"] = time.perf_counter() - began
            content = Content(packed.media_type, packed.size_bytes, packed.digest, None, packed.reference)
            began = time.perf_counter()
            async with payloads.fetched(content, target.parent, [identity] if way else []) as fetched:
                assert isinstance(fetched.content, Path)
                assert fetched.problem is None
            figures[f"down{way}"] = time.perf_counter() - began
    sealed.unlink()
    print(json.dumps(figures | {"peak": peak_memory()}), flush=True)


async def serve(home: Path) -> None:
    """The ceiling's server."""
    create_certificate(home, ())
    block = bytes(CHUNK_SIZE)

    async def up(chunks: AsyncIterator[bytes], _context: Any) -> bytes:
        received = 0
        async for chunk in chunks:
            received += len(chunk)
        return str(received).encode()

    async def down(size: bytes, _context: Any) -> AsyncIterator[bytes]:
        for _ in range(int(size) // CHUNK_SIZE):
            yield block

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 2 * CHUNK_SIZE)])
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Down": grpc.unary_stream_rpc_method_handler(down),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Ceiling", handlers),))
    pair = ((home / KEY_FILE).read_bytes(), (home / CERTIFICATE_FILE).read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    print(f"ready: 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def ceiling(address: str, home: Path, size: int) -> None:
    """The ceiling's client; prints seconds."""
    block = bytes(CHUNK_SIZE)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size // CHUNK_SIZE):
            yield block

    trust = ServerTrust.from_pem((home / CERTIFICATE_FILE).read_bytes())
    async with open_channel(address, trust) as channel:
        began = time.perf_counter()
        upload: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(_UP)
        await upload(chunks())
        up = time.perf_counter() - began
        began = time.perf_counter()
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_DOWN)
        received = 0
        async for chunk in call(str(size).encode()):
            received += len(chunk)
        down = time.perf_counter() - began
    assert received == size
    print(json.dumps({"up": up, "down": down}), flush=True)


def peak_memory(pid: int | str = "self") -> int:
    """The most memory that a process had so far, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the process is gone")


def main() -> None:
    parser = argparse.ArgumentParser()
    programs = parser.add_subparsers(dest="program", required=True)
    client = programs.add_parser("ours")
    for name in ("address", "data", "user", "password", "source", "target"):
        client.add_argument(name, type=Path if name in ("data", "source", "target") else str)
    programs.add_parser("serve").add_argument("home", type=Path)
    bare = programs.add_parser("ceiling")
    for name, kind in (("address", str), ("home", Path), ("size", int)):
        bare.add_argument(name, type=kind)
    options = vars(parser.parse_args())
    known: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"ours": ours, "serve": serve, "ceiling": ceiling}
    run = known[options.pop("program")]
    uvloop.run(run(**options))


if __name__ == "__main__":
    main()
