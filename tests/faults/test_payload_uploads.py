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
from vantage.common.payload_frames import CHUNK_SIZE, Chunk, PayloadStub
from vantage.testing.processes import Installation

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
            network.address = await network.server.start("ready: ")
            async with network.channel() as channel:
                stub = PayloadStub(channel)
                question = pb.GetUploadRequest(request_id=upload.request_id)
                known = await stub.GetUpload(question, metadata=network.metadata)
                assert known.offset <= sent * CHUNK_SIZE
                answer = await stub.UploadPayload(upload.parts(known.offset), metadata=network.metadata)
                request = pb.DownloadPayloadRequest(name=answer.payload.name)
                download = stub.DownloadPayload(request, metadata=network.metadata)
                assert b"".join([bytes(chunk) async for chunk in download]) == CONTENT
