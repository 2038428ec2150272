"""Sealing at the node: arguments are opened here, results are sealed before a byte of them leaves."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from vantage.api.types.v1 import types_pb2
from vantage.common import argument_files, sealing
from vantage.common.bound_arguments import line_of, skip_line
from vantage.common.errors import Reason, VantageError, error
from vantage.common.names import new_id
from vantage.common.sealed_file import seal_file
from vantage.common.sealing import SealedPayload
from vantage.node.door import StoredResult
from vantage.node.threads import to_its_end

_SMALL = 256 * 1024
"""Bytes that are sealed without a thread: it takes less than handing them over."""


class Sealer:
    """Opens with the node's keys, seals to others'.

    Args:
        identities: gives the node's secret keys, the newest first.
    """

    def __init__(self, identities: Callable[[], Sequence[str]]) -> None:
        self._identities = identities

    async def open(self, content: bytes, identities: Sequence[str] = ()) -> bytes:
        """The bytes that were sealed to this node, or to other keys.

        Args:
            content: what was sealed.
            identities: secret keys to try in place of the node's.

        Raises:
            RefusedError: SEAL_INVALID.
        """
        identities = identities or self._identities()
        if len(content) <= _SMALL:
            return sealing.unseal(SealedPayload(content), identities)
        return await asyncio.to_thread(sealing.unseal, SealedPayload(content), identities)

    async def unpack(self, sealed: Path, requester: str, directory: Path, max_bytes: int) -> argument_files.Unpacked:
        """The arguments with files in a sealed archive, for an order of the requester; memory stays bounded.

        Args:
            sealed: the file that was sent.
            requester: who has signed the order that it came with.
            directory: gets the files; whatever happens, the caller removes it.
            max_bytes: of all files together.

        Raises:
            RefusedError: SEAL_INVALID.
            VantageError: as ``argument_files.unpack``.
            OSError: of sealed or directory.
        """
        return await to_its_end(_unpack, sealed, self._identities(), requester, directory, max_bytes)

    async def seal(self, content: bytes, recipients: Sequence[str]) -> bytes:
        """Bytes for recipients.

        Raises:
            InvalidArgumentError: KEY_INVALID.
        """
        if len(content) <= _SMALL:
            return sealing.seal(content, recipients).content
        return (await asyncio.to_thread(sealing.seal, content, recipients)).content

    async def seal_result(self, result: StoredResult, recipients: Sequence[str]) -> StoredResult:
        """A result for recipients: in a file beside the open one when that is a file, which stays.

        Raises:
            InvalidArgumentError: KEY_INVALID, the order names recipients that are none.
            RunError: SCRATCH_UNAVAILABLE, no room.
        """
        if isinstance(result.content, bytes):
            sealed = await self.seal(result.content, recipients)
            return StoredResult(result.media_type, sealed, len(sealed), f"sha256:{hashlib.sha256(sealed).hexdigest()}")
        target = result.content.with_name(f"{result.content.name}.age")
        return await _seal_beside(result.media_type, result.content, target, recipients, b"", durable=True)

    @asynccontextmanager
    async def sealed_arguments(
        self, given: StoredResult, requester: str, recipients: Sequence[str]
    ) -> AsyncIterator[StoredResult]:
        """Arguments for recipients and for an order of the requester: in memory when they are, else in a file beside
        the open one, which goes away in the end; memory stays bounded.

        Raises:
            InvalidArgumentError: KEY_INVALID.
            RunError: SCRATCH_UNAVAILABLE, no room.
        """
        lead = line_of(requester)
        if isinstance(given.content, bytes):
            sealed = await self.seal(lead + given.content, recipients)
            digest = f"sha256:{hashlib.sha256(sealed).hexdigest()}"
            yield StoredResult(given.media_type, sealed, len(sealed), digest)
            return
        target = given.content.with_name(f"{new_id()}.age")
        try:
            # Not durable: a node that is restarted before the subtask is known seals anew.
            yield await _seal_beside(given.media_type, given.content, target, recipients, lead, durable=False)
        finally:
            await asyncio.to_thread(target.unlink, missing_ok=True)


def payload_of(result: StoredResult, *, sealed: bool, content: bytes) -> types_pb2.Payload:
    """A result inside a message."""
    return types_pb2.Payload(
        media_type=result.media_type,
        sealing=types_pb2.SEALING_AGE_V1 if sealed else types_pb2.SEALING_NONE,
        inline=content,
        size_bytes=result.size,
        digest=result.digest,
    )


def _unpack(
    sealed: Path, identities: Sequence[str], requester: str, directory: Path, max_bytes: int
) -> argument_files.Unpacked:
    """Opened in one thread and unpacked in another: what is between them is a pipe."""
    read_end, write_end = os.pipe()

    def unseal() -> None:
        with os.fdopen(write_end, "wb") as target, sealed.open("rb") as source:
            sealing.unseal_stream(source, target, identities)

    unpacked: argument_files.Unpacked | Exception
    with ThreadPoolExecutor(1, "unseal") as threads:
        unsealing = threads.submit(unseal)
        # Closed before the thread is waited for: it must not write into a pipe that nobody reads.
        with os.fdopen(read_end, "rb") as stream:
            try:
                skip_line(stream, requester)
                unpacked = argument_files.unpack(stream, directory, max_bytes)
            except (VantageError, OSError) as problem:
                unpacked = problem
    # A seal that does not open looks like an archive without its end: the cause comes first. And until the last byte
    # was found authentic none of them counts.
    problem_of_seal = unsealing.exception()
    if problem_of_seal is not None and not (isinstance(unpacked, Exception) and isinstance(problem_of_seal, OSError)):
        raise problem_of_seal
    if isinstance(unpacked, Exception):
        raise unpacked
    return unpacked


async def _seal_beside(
    media_type: str, path: Path, target: Path, recipients: Sequence[str], lead: bytes, *, durable: bool
) -> StoredResult:
    def seal() -> StoredResult:
        with path.open("rb") as source:
            digest, size = seal_file(source, target, tuple(recipients), lead=lead, durable=durable)
        return StoredResult(media_type, target, size, digest)

    try:
        return await to_its_end(seal)
    except OSError as problem:
        raise error(
            Reason.SCRATCH_UNAVAILABLE,
            f"the node has no room to seal what leaves: {problem.strerror}: ask its admin to look at the disk",
        ) from problem
