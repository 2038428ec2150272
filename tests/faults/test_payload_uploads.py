"""The server dies in the middle of an upload, without a chance to say so."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.client import AsyncClient
from vantage.client.payloads import Payloads
from vantage.common.payload_frames import CHUNK_SIZE, Chunk, PayloadStub
from vantage.server.certificate import fingerprint
from vantage.testing.processes import PASSWORD, RESEARCHER, Installation
from vantage.testing.proxy import Proxy
from vantage.testing.station import COLLABORATION, IMAGE

CONTENT = os.urandom(12 * CHUNK_SIZE + 17)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Upload:
    """An upload that can stop in the middle without ending its stream."""

    def __init__(self) -> None:
        self.request_id = str(uuid.uuid4())
        self.stopped = asyncio.Event()
        self._never = asyncio.Event()

    async def parts(self, offset: int, stop: int | None = None) -> AsyncIterator[pb.UploadHeader | Chunk]:
        yield pb.UploadHeader(request_id=self.request_id, size_bytes=len(CONTENT), digest=DIGEST, offset=offset)
        for number, start in enumerate(range(offset, len(CONTENT), CHUNK_SIZE)):
            if number == stop:
                self.stopped.set()
                await self._never.wait()
            yield CONTENT[start : start + CHUNK_SIZE]


async def test_uploads_go_on_after_the_server_was_killed(tmp_path: Path) -> None:
    async with Installation.running(tmp_path, []) as network:
        for sent in (1, 7, 12):
            upload = Upload()
            async with network.channel() as channel:
                call = PayloadStub(channel).UploadPayload(upload.parts(0, sent), metadata=network.metadata)
                await upload.stopped.wait()
                await network.server.stop(kill=True)
                with pytest.raises(grpc.aio.AioRpcError):
                    await call
            await network.start_server()
            async with network.channel() as channel:
                stub = PayloadStub(channel)
                question = pb.GetUploadRequest(request_id=upload.request_id)
                known = await stub.GetUpload(question, metadata=network.metadata)
                assert known.offset <= sent * CHUNK_SIZE
                answer = await stub.UploadPayload(upload.parts(known.offset), metadata=network.metadata)
                request = pb.DownloadPayloadRequest(name=answer.payload.name)
                download = stub.DownloadPayload(request, metadata=network.metadata)
                assert b"".join([bytes(chunk) async for chunk in download]) == CONTENT


SIZE = 16 * CHUNK_SIZE
LINE = 120e6
"""Bits per second: slow enough that there is a middle."""
BUFFERED = 6 * CHUNK_SIZE
"""What may be under way when a connection is lost, and is sent again."""


async def killed(network: Installation) -> None:
    """Kill the server and start it again where it was."""
    await network.server.stop(kill=True)
    await network.start_server()


async def test_node_and_client_go_on_where_an_upload_was_when_the_server_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(os.urandom(SIZE))
    async with (
        Installation.running(tmp_path / "network", ["clara"]) as network,
        Proxy.to(network.address, bits_per_second=LINE) as way,
    ):
        trust = fingerprint(network.data)
        await network.reconfigure("clara", server={"address": way.address, "fingerprint": trust})

        # The client's arguments.
        async with AsyncClient.connect(way.address, fingerprint=trust) as client:
            await client.auth.login(RESEARCHER, PASSWORD)
            before = way.up.carried
            packing = asyncio.create_task(Payloads(client._caller).pack(path, "application/octet-stream"))
            await way.up.has_carried(before + SIZE // 2)
            assert not packing.done()
            await killed(network)
            packed = await packing
            assert packed.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"  # as the server took it
            assert way.up.carried - before < SIZE + BUFFERED

        # The node's result.
        async with AsyncClient.connect(network.address, fingerprint=trust) as client:
            await client.auth.login(RESEARCHER, PASSWORD)
            before = way.up.carried
            task = await client.tasks.run(
                image=IMAGE,
                collaboration=COLLABORATION,
                function="large",
                arguments={"size": SIZE},
                organizations=["clara"],
            )
            await way.up.has_carried(before + SIZE // 2)
            await killed(network)
            assert await task.result(timeout=60) == bytes(SIZE)
            assert way.up.carried - before < SIZE + BUFFERED
            (run,) = (await task.refresh()).runs
            assert run.attempt == 1
    assert network.nodes["clara"].status == 0  # the one that was started last, too
