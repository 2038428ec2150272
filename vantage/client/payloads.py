"""Arguments and results beyond what fits into a message: sent and fetched in pieces, from where it was interrupted."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import aclosing
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import grpc

from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.client.caller import Caller, Patience
from vantage.client.models import Content
from vantage.common.errors import Reason, UnauthenticatedError, VantageError, error
from vantage.common.payload_frames import Chunk, upload
from vantage.common.rpc import error_from_rpc
from vantage.common.write_behind import WriteBehind

_MENDS_ITSELF = frozenset({Reason.PAYLOAD_OFFSET_MISMATCH, Reason.PAYLOAD_DIGEST_MISMATCH, Reason.IN_USE})
"""What the server says while it has not noticed yet that the connection before was lost, and when bytes were."""

Transfer = Callable[[str, int, int], None]
"""Told how far a transfer is: "upload" or "download", bytes so far, bytes in all. Called on the client's loop."""


def _ignore(_direction: str, _done: int, _total: int) -> None:
    """Nobody wants to know."""


class Payloads:
    """Moves payloads.

    Args:
        caller: makes the calls.
        transfer: is told how far transfers are.
    """

    def __init__(self, caller: Caller, transfer: Transfer | None = None) -> None:
        self._caller = caller
        self._transfer = transfer or _ignore
        self._limit: int | None = None

    async def pack(
        self, source: bytes | Path, media_type: str, limit: int | None = None, digest: str | None = None
    ) -> types_pb2.Payload:
        """Bytes or a file as a payload: inside the message when the server allows, else uploaded.

        Args:
            source: where the bytes are.
            media_type: of the bytes.
            limit: most that may be inside the message, when that is less than the server allows.
            digest: of the bytes, when it is known already: otherwise they are read twice.

        Raises:
            VantageError: the file cannot be read, or the server does not take it.
        """
        try:
            size = len(source) if isinstance(source, bytes) else (await asyncio.to_thread(source.stat)).st_size
            inline = await self._inline_limit()
            if size <= (inline if limit is None else min(inline, limit)):
                content = source if isinstance(source, bytes) else await asyncio.to_thread(source.read_bytes)
                return types_pb2.Payload(media_type=media_type, sealing=types_pb2.SEALING_NONE, inline=content)
            if digest is None:
                digest = await asyncio.to_thread(_digest, source)
            name = await self._upload(source, size, digest)
        except OSError as problem:
            raise error(Reason.INVALID_ARGUMENT, f"cannot read {source!s:.200}: {problem.strerror}") from problem
        return types_pb2.Payload(
            media_type=media_type, sealing=types_pb2.SEALING_NONE, reference=name, size_bytes=size, digest=digest
        )

    async def fetch(self, content: Content) -> tuple[bytes, str]:
        """The bytes of a result, as its digest says if it has one, and the digest that they have.

        Raises:
            InvalidArgumentError: PAYLOAD_DIGEST_MISMATCH.
            VantageError: the server does not give it.
        """
        if content.inline is not None:
            digest = _digest(content.inline)
            _check(digest, content.digest)
            return content.inline, digest
        buffer = BytesIO()
        sink = _Sink(buffer)
        await self._download(content, sink)
        _check(sink.digest, content.digest)
        return buffer.getvalue(), sink.digest

    async def fetch_to(self, content: Content, path: Path) -> None:
        """The bytes of a result into a file, as its digest says; memory stays bounded whatever its size.

        It is written beside its place and moved there when it is complete; what was there before stays until then.

        Raises:
            InvalidArgumentError: PAYLOAD_DIGEST_MISMATCH, or the file cannot be written.
            VantageError: the server does not give it.
        """
        part = path.with_name(f".{path.name}.part")
        try:
            file = await asyncio.to_thread(part.open, "wb")
            try:
                sink = _Sink(file)
                if content.inline is None:
                    await self._download(content, sink)
                else:
                    await sink.take([content.inline])
                _check(sink.digest, content.digest)
                await asyncio.to_thread(_finish, file, part, path)
            finally:
                file.close()
                part.unlink(missing_ok=True)
        except OSError as problem:
            raise error(Reason.INVALID_ARGUMENT, f"cannot write {path!s:.200}: {problem.strerror}") from problem

    async def _inline_limit(self) -> int:
        if self._limit is None:
            info = await self._caller.unary(
                lambda stubs: stubs.auth.GetServerInfo,
                auth_pb.GetServerInfoRequest(),
                anonymous=True,
                repeatable=True,
            )
            self._limit = info.max_inline_payload_bytes
        return self._limit

    async def _download(self, content: Content, sink: _Sink) -> None:
        patience = Patience()
        while True:
            behind = WriteBehind(sink.take)
            received = sink.size
            request = pb.DownloadPayloadRequest(name=content.reference or "", offset=received)
            try:
                try:
                    call = self._caller.stream(lambda stubs: stubs.payloads.DownloadPayload, request)
                    async with aclosing(call) as chunks:
                        async for chunk in chunks:
                            received += len(chunk)
                            if received > content.size:
                                raise error(Reason.PAYLOAD_DIGEST_MISMATCH, "the server sends more than the result has")
                            await behind.add(chunk)
                            patience.progressed()
                            self._transfer("download", received, content.size)
                finally:
                    # Also when the stream broke: the next attempt goes on behind what arrived.
                    await behind.flush()
                return
            except VantageError as problem:
                await patience.wait_or_raise(problem)

    async def _upload(self, source: bytes | Path, size: int, digest: str) -> str:
        request_id = str(uuid.uuid4())
        patience = Patience()
        while True:
            try:
                known = await self._caller.unary(
                    lambda stubs: stubs.payloads.GetUpload, pb.GetUploadRequest(request_id=request_id), repeatable=True
                )
                if known.HasField("payload"):
                    return known.payload.name
                header = pb.UploadHeader(request_id=request_id, size_bytes=size, digest=digest, offset=known.offset)
                return await self._send(header, source)
            except VantageError as problem:
                if problem.reason in _MENDS_ITSELF:
                    await patience.wait_unclear(problem)
                else:
                    await patience.wait_or_raise(problem)

    async def _send(self, header: pb.UploadHeader, source: bytes | Path) -> str:
        stubs = await self._caller.stubs()
        token, metadata = await self._caller.metadata()
        try:
            answer = await upload(
                stubs.payloads,
                metadata,
                header,
                source,
                lambda done: self._transfer("upload", done, header.size_bytes),
            )
        except grpc.aio.AioRpcError as failure:
            problem = error_from_rpc(failure)
            if isinstance(problem, UnauthenticatedError):
                await self._caller.credentials.refused(token, problem)
                raise error(Reason.UNAVAILABLE, "the token was renewed in the middle of an upload") from failure
            raise problem from failure
        return answer.payload.name


class _Sink:
    """Where a download goes, and its digest.

    Attributes:
        size: bytes so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    async def take(self, blocks: Sequence[Chunk]) -> None:
        """Write blocks, off the event loop."""
        await asyncio.to_thread(self._take, blocks)

    @property
    def digest(self) -> str:
        """Of the bytes so far."""
        return f"sha256:{self._digest.hexdigest()}"

    def _take(self, blocks: Sequence[Chunk]) -> None:
        for block in blocks:
            self._file.write(block)
            self._digest.update(block)
            self.size += len(block)


def _check(digest: str, announced: str) -> None:
    """Compare with what was announced, if anything was."""
    if announced and digest != announced:
        raise error(Reason.PAYLOAD_DIGEST_MISMATCH, "the result was changed on its way: fetch it again")


def _finish(file: BinaryIO, part: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    part.replace(path)


def _digest(source: bytes | Path) -> str:
    if isinstance(source, bytes):
        return f"sha256:{hashlib.sha256(source).hexdigest()}"
    with source.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
