"""Payloads that are too large to travel inside a message: brought from the server, and brought to it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import grpc

from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common.backoff import Backoff
from vantage.common.errors import Reason, UnauthenticatedError, UnavailableError, VantageError, error
from vantage.common.opening_sink import OpeningSink
from vantage.common.payload_frames import PayloadStub, upload
from vantage.common.rpc import error_from_rpc
from vantage.common.sink import Sink
from vantage.common.write_behind import WriteBehind
from vantage.node.connection import Connection, FatalError
from vantage.node.door import StoredResult

log = logging.getLogger(__name__)

_NAMESPACE = uuid.UUID("6f3a3c0a-5d0b-4c29-9b39-0a2f6f0f6e55")
_MENDS_ITSELF = frozenset({Reason.PAYLOAD_OFFSET_MISMATCH, Reason.PAYLOAD_DIGEST_MISMATCH, Reason.IN_USE})

_UNCLEAR = frozenset({Reason.INTERNAL, Reason.CANCELLED})
"""What a stream that is cut in the middle of a write can look like; also what a fault of the server looks like."""
_UNCLEAR_ATTEMPTS = 5
"""In a row, without a byte that arrived."""
_QUESTION_TIMEOUT = 30.0


class Payloads:
    """Uploads and downloads that go on after a lost connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self, payload: types_pb2.Payload, limit: int) -> bytes:
        """The bytes of a payload as transported, inline or downloaded and checked.

        Args:
            payload: what to bring.
            limit: bytes that are downloaded.

        Raises:
            VantageError: it is too large, does not have the digest that was announced, or is not there.
        """
        if payload.WhichOneof("content") != "reference":
            return payload.inline
        content = BytesIO()
        await self.open_to(payload, content, limit)
        return content.getvalue()

    async def read_to(self, payload: types_pb2.Payload, path: Path, limit: int) -> None:
        """Like ``read``, into a new file; memory stays bounded.

        Args:
            payload: what to bring.
            path: does not exist; whatever happens, the caller removes it.
            limit: bytes that are taken.

        Raises:
            VantageError: as ``read``; SCRATCH_UNAVAILABLE, there is no room.
        """
        try:
            with await asyncio.to_thread(path.open, "xb") as file:
                if payload.WhichOneof("content") == "reference":
                    await self.open_to(payload, file, limit)
                else:
                    file.write(payload.inline)
        except OSError as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                f"the node has no room for the arguments: {problem.strerror}: ask its admin to look at the disk",
            ) from problem

    async def open_to(
        self, payload: types_pb2.Payload, file: BinaryIO, limit: int, identities: Sequence[str] = ()
    ) -> None:
        """Bring a payload into an empty file, opened while it arrives; memory stays bounded.

        What is in the file counts when this returns, and only if the digest of the payload is to be believed.

        Args:
            payload: what to bring.
            file: takes the bytes; the caller closes it.
            limit: bytes that are taken.
            identities: secret keys that open it; none when it is not sealed.

        Raises:
            VantageError: as ``read``.
            RefusedError: SEAL_INVALID.
            OSError: of the file.
        """
        if payload.size_bytes > limit:
            raise _too_large(payload.size_bytes, limit)
        for _once_more in (True, False):
            if await self._arrives(payload, OpeningSink(file, identities) if identities else Sink(file), limit):
                return
            log.warning("payload was changed on its way", extra={"payload": payload.reference})
            file.seek(0)
            file.truncate()
        raise error(Reason.PAYLOAD_DIGEST_MISMATCH, "the payload was changed on its way: send the task again")

    async def _arrives(self, payload: types_pb2.Payload, sink: Sink | OpeningSink, limit: int) -> bool:
        """Bring all of it; returns whether it is what was announced."""
        try:
            if payload.WhichOneof("content") == "reference":
                await self._download_whole(payload, sink, limit)
            else:
                await sink.take([payload.inline])
            if payload.digest and sink.digest != payload.digest:
                return False
            if isinstance(sink, OpeningSink):
                await sink.opened()
            return True
        finally:
            if isinstance(sink, OpeningSink):
                await sink.close()

    async def _download_whole(self, payload: types_pb2.Payload, sink: Sink | OpeningSink, limit: int) -> None:
        patience = _Patience()
        while True:
            try:
                await self._download(payload, sink, limit)
                return
            except VantageError as problem:
                await self._wait_or_raise(problem, patience, sink.size)

    async def upload(self, result: StoredResult, key: str, *, sealed: bool) -> types_pb2.Payload:
        """Bring a result to the server, however often the connection is lost; the same key never uploads twice.

        Raises:
            VantageError: the server does not take it.
        """
        request_id = str(uuid.uuid5(_NAMESPACE, key))
        patience = _Patience()
        name = ""
        arrived = 0
        while not name:
            try:
                known = await self._known(request_id)
                arrived = known.offset
                name = known.payload.name or await self._upload(result, request_id, arrived)
            except VantageError as problem:
                log.warning("upload of a result interrupted", extra={"reason": problem.reason.name})
                await self._wait_or_raise(problem, patience, arrived)
        return types_pb2.Payload(
            media_type=result.media_type,
            sealing=types_pb2.SEALING_AGE_V1 if sealed else types_pb2.SEALING_NONE,
            reference=name,
            size_bytes=result.size,
            digest=result.digest,
        )

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        try:
            return await self._connection.metadata()
        except FatalError as problem:
            # Whether the node ends for this is decided elsewhere; it is no fault of the run whose bytes wait.
            raise error(Reason.UNAVAILABLE, f"the node lost its server: {problem}") from problem

    async def _download(self, payload: types_pb2.Payload, sink: Sink | OpeningSink, limit: int) -> None:
        metadata = await self._metadata()
        stub = PayloadStub(await self._connection.bulk_channel())
        behind = WriteBehind(sink.take)
        received = sink.size
        request = pb.DownloadPayloadRequest(name=payload.reference, offset=received)
        try:
            try:
                async for part in stub.DownloadPayload(request, metadata=metadata):
                    received += len(part)
                    if received > limit:
                        raise _too_large(received, limit)
                    await behind.add(part)
            finally:
                # Also when the stream broke: the next attempt goes on behind what arrived.
                await behind.flush()
        except grpc.aio.AioRpcError as problem:
            raise error_from_rpc(problem) from problem

    async def _known(self, request_id: str) -> pb.GetUploadResponse:
        metadata = await self._metadata()
        stub = PayloadStub(await self._connection.bulk_channel())
        request = pb.GetUploadRequest(request_id=request_id)
        try:
            return await stub.GetUpload(request, metadata=metadata, timeout=_QUESTION_TIMEOUT)
        except grpc.aio.AioRpcError as problem:
            raise error_from_rpc(problem) from problem

    async def _upload(self, result: StoredResult, request_id: str, offset: int) -> str:
        metadata = await self._metadata()
        stub = PayloadStub(await self._connection.bulk_channel())
        header = pb.UploadHeader(request_id=request_id, size_bytes=result.size, digest=result.digest, offset=offset)
        try:
            answer = await upload(stub, metadata, header, result.content)
        except grpc.aio.AioRpcError as problem:
            raise error_from_rpc(problem) from problem
        return answer.payload.name

    async def _wait_or_raise(self, problem: VantageError, patience: _Patience, arrived: int) -> None:
        if isinstance(problem, UnauthenticatedError):
            self._connection.token_refused()
        patience.check(problem, arrived)
        await self._connection.pause(patience.backoff)


class _Patience:
    """Decides after each failure of a transfer whether and when to go on.

    Attributes:
        backoff: when.
    """

    def __init__(self) -> None:
        self.backoff = Backoff()
        self._unclear = 0
        self._arrived = 0

    def check(self, problem: VantageError, arrived: int) -> None:
        """There may be another attempt; ``arrived`` bytes are where they belong by now.

        Raises:
            VantageError: the problem, when another attempt cannot help.
        """
        if arrived > self._arrived:  # however often a bad line breaks, it gets there
            self._arrived, self._unclear = arrived, 0
            self.backoff.reset()
        if problem.reason in _UNCLEAR and self._unclear < _UNCLEAR_ATTEMPTS:
            self._unclear += 1
            log.info("transfer ended for an unclear reason, trying again", extra={"attempt": self._unclear})
        elif not isinstance(problem, UnavailableError | UnauthenticatedError) and problem.reason not in _MENDS_ITSELF:
            raise problem


def _too_large(size: int, limit: int) -> VantageError:
    return error(
        Reason.PAYLOAD_TOO_LARGE,
        f"the payload has {size} bytes, the node takes {limit}: send less, or ask its admin for a higher "
        "limits.max_input_bytes",
    )
