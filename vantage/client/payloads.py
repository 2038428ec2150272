"""Arguments and results beyond what fits into a message: sent and fetched in pieces, from where it was interrupted."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import grpc

from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.client.caller import Caller, Patience
from vantage.client.models import Content
from vantage.common.errors import Reason, RefusedError, UnauthenticatedError, VantageError, error
from vantage.common.opening_sink import OpeningSink
from vantage.common.payload_frames import upload
from vantage.common.rpc import error_from_rpc
from vantage.common.sink import Sink
from vantage.common.write_behind import WriteBehind

_MENDS_ITSELF = frozenset({Reason.PAYLOAD_OFFSET_MISMATCH, Reason.PAYLOAD_DIGEST_MISMATCH, Reason.IN_USE})
"""What the server says while it has not noticed yet that the connection before was lost, and when bytes were."""

Transfer = Callable[[str, int, int], None]
"""Told how far a transfer is: "upload" or "download", bytes so far, bytes in all. Called on the client's loop."""


def _ignore(_direction: str, _done: int, _total: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Fetched:
    """What came from the server.

    Attributes:
        content: the bytes, or the file that holds them, opened if there were keys for that.
        digest: of what came.
        problem: why it did not open; the file is then worth nothing.
    """

    content: bytes | Path
    digest: str
    problem: RefusedError | None = None


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
        self,
        source: bytes | Path,
        media_type: str,
        limit: int | None = None,
        digest: str | None = None,
        question: str = "",
    ) -> types_pb2.Payload:
        """Bytes or a file as a payload: inside the message when the server allows, else uploaded.

        Args:
            source: where the bytes are.
            media_type: of the bytes.
            limit: most that may be inside the message, when that is less than the server allows.
            digest: of the bytes, when it is known already: otherwise they are read twice.
            question: request id of the question that they are for: asked again, it refers to the same upload.

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
            name = await self._upload(source, size, digest, question)
        except OSError as problem:
            raise error(Reason.INVALID_ARGUMENT, f"cannot read {source!s:.200}: {problem.strerror}") from problem
        return types_pb2.Payload(
            media_type=media_type, sealing=types_pb2.SEALING_NONE, reference=name, size_bytes=size, digest=digest
        )

    @asynccontextmanager
    async def fetched(
        self, content: Content, into: Path | None = None, identities: Sequence[str] = ()
    ) -> AsyncIterator[Fetched]:
        """The bytes of a result, as its digest says if it has one.

        Args:
            content: which result.
            into: directory for a file that holds them, so that memory stays bounded whatever their size; it goes away
                with the context unless it was moved. In memory when None.
            identities: secret keys with which what comes into a file is opened while it arrives. Nobody else must see
                that file before the digest is found to be the one that was signed.

        Raises:
            InvalidArgumentError: PAYLOAD_DIGEST_MISMATCH, or the file cannot be written.
            VantageError: the server does not give it.
        """
        if into is None:
            buffer = BytesIO()
            digest, _ = await self._fetch(content, buffer)
            yield Fetched(buffer.getvalue(), digest)
            return
        part = into / f".{uuid.uuid4()}.part"
        try:
            try:
                with await asyncio.to_thread(part.open, "xb") as file:
                    digest, problem_of_seal = await self._fetch(content, file, identities)
                    await asyncio.to_thread(_settle, file)
            except OSError as problem:
                raise error(Reason.INVALID_ARGUMENT, f"cannot write to {into!s:.200}: {problem.strerror}") from problem
            yield Fetched(part, digest, problem_of_seal)
        finally:
            part.unlink(missing_ok=True)

    async def _fetch(
        self, content: Content, file: BinaryIO, identities: Sequence[str] = ()
    ) -> tuple[str, RefusedError | None]:
        """The digest of what came, and why it does not open."""
        for last in (content.inline is not None, True):
            try:
                if not identities:
                    return await self._receive(content, Sink(file)), None
                return await self._open(content, OpeningSink(file, identities))
            except VantageError as problem:
                # Once more from the beginning when what came is not what was announced.
                if last or problem.reason is not Reason.PAYLOAD_DIGEST_MISMATCH:
                    raise
                file.seek(0)
                file.truncate()
        raise AssertionError("the last attempt returns or raises")

    async def _open(self, content: Content, sink: OpeningSink) -> tuple[str, RefusedError | None]:
        try:
            digest = await self._receive(content, sink)
            try:
                await sink.opened()
            except RefusedError as problem:
                return digest, problem
            return digest, None
        finally:
            await sink.close()

    async def _receive(self, content: Content, sink: Sink | OpeningSink) -> str:
        if content.inline is None:
            await self._download(content, sink)
        else:
            await sink.take([content.inline])
        _check(sink.digest, content.digest)
        return sink.digest

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

    async def _download(self, content: Content, sink: Sink | OpeningSink) -> None:
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

    async def _upload(self, source: bytes | Path, size: int, digest: str, question: str) -> str:
        request_id = str(uuid.uuid5(uuid.UUID(question), digest) if question else uuid.uuid4())
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


def _check(digest: str, announced: str) -> None:
    """Compare with what was announced, if anything was."""
    if announced and digest != announced:
        raise error(Reason.PAYLOAD_DIGEST_MISMATCH, "the result was changed on its way: fetch it again")


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _digest(source: bytes | Path) -> str:
    if isinstance(source, bytes):
        return f"sha256:{hashlib.sha256(source).hexdigest()}"
    with source.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
