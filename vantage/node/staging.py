"""Arguments of subtasks that a run has handed over ahead: in a directory of the run that its container does not see."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.types.v1 import types_pb2
from vantage.common import argument_files
from vantage.common.errors import Reason, VantageError, error
from vantage.common.media_types import JSON
from vantage.common.names import new_id
from vantage.node.door import StoredResult
from vantage.node.received import receive
from vantage.node.threads import to_its_end

MAX_STAGED = 100
"""Arguments that one run may have staged at once."""
_SUFFIXES = {JSON: ".json", argument_files.MEDIA_TYPE: ".tar"}
_FILE = re.compile(r"([0-9a-f]{64})(\.json|\.tar)")

_Key = tuple[str, str]
Staged = Mapping[_Key, StoredResult]
"""Staged arguments, in files, by media type and digest."""
NOTHING: Staged = MappingProxyType({})


@dataclass
class _Entry:
    """Staged arguments.

    Attributes:
        waits: no subtask was made with them since they came.
        users: subtasks that are being made with them.
    """

    file: Path
    size: int
    waits: bool
    users: int = 0


class Staging:
    """The staged arguments of one attempt. Call from one event loop.

    What waits for a subtask that names it stays; anything else makes room for what comes, the oldest first. What a
    former process of the node has taken is there and does not wait. All of it is removed with the directory of the run.

    Args:
        directory: in that of the run; made when it is needed.
        max_bytes: of all together.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._taking = asyncio.Lock()
        self._entries = dict(_left(directory))

    async def take(self, media_type: str, chunks: AsyncIterator[bytes]) -> StoredResult:
        """Keep arguments; the same ones again are kept once.

        Args:
            media_type: of the bytes.
            chunks: the bytes.

        Raises:
            InvalidArgumentError: an unknown media type; ARGUMENTS_INVALID, not the archive that it says; that of
                ``chunks``.
            LimitExceededError: PAYLOAD_TOO_LARGE; PAYLOAD_QUOTA_EXCEEDED, with what waits for its subtask.
            RunError: SCRATCH_UNAVAILABLE.
        """
        suffix = _SUFFIXES.get(media_type)
        if suffix is None:
            raise error(
                Reason.INVALID_ARGUMENT,
                f"arguments of subtasks are {' or '.join(_SUFFIXES)}, not {media_type:.100}",
                field="header.media_type",
            )
        # One at a time: many at once would take as many times the room on disk.
        async with self._taking:
            path = self._directory / f"incoming-{new_id()}"
            try:
                await asyncio.to_thread(self._directory.mkdir, mode=0o700, exist_ok=True)
                await self._make_room(0, media_type)
                digest, size = await receive(
                    chunks, path, lambda size: self._make_room(size, media_type), durable=False
                )
                file = self._directory / f"{digest.removeprefix('sha256:')}{suffix}"
                await _check(path, media_type)
                path.replace(file)  # here, not in a thread: nothing can come between that and the entry
            except OSError as problem:
                raise error(
                    Reason.SCRATCH_UNAVAILABLE,
                    f"the node cannot store the arguments: {problem.strerror}: ask its admin to look at the disk",
                ) from problem
            entry = self._entries.pop((media_type, digest), _Entry(file, size, waits=True))
            entry.waits = True
            self._entries[media_type, digest] = entry
        return StoredResult(media_type, file, size, digest)

    @contextlib.contextmanager
    def held(self, request: algorithm_pb.RunSubtaskRequest) -> Iterator[Staged]:
        """The staged arguments that a question names, which is told their size; they stay while the context lasts.

        Raises:
            InvalidArgumentError: arguments by reference.
            NotFoundError: ARGUMENTS_NOT_STAGED.
        """
        found: dict[_Key, _Entry] = {}
        for target in request.targets:
            payload = target.arguments
            if payload.HasField("reference"):
                raise error(
                    Reason.INVALID_ARGUMENT,
                    "arguments of subtasks are inline, or handed over by StageArguments",
                    field="targets.arguments.reference",
                )
            if not is_staged(payload):
                continue
            payload.media_type = payload.media_type or JSON
            entry = self._entries.get((payload.media_type, payload.digest))
            if entry is None or payload.size_bytes not in (0, entry.size):
                raise error(
                    Reason.ARGUMENTS_NOT_STAGED,
                    f"no arguments with the digest {payload.digest:.100}, this size and media type are at the node: "
                    "hand them over by StageArguments, and ask again",
                )
            payload.size_bytes = entry.size
            found[payload.media_type, payload.digest] = entry
        for entry in found.values():
            entry.users += 1
            entry.waits = False  # now, not in the end: what is staged again meanwhile waits for another subtask
        try:
            yield {key: StoredResult(key[0], entry.file, entry.size, key[1]) for key, entry in found.items()}
        finally:
            for entry in found.values():
                entry.users -= 1

    async def _make_room(self, size: int, media_type: str) -> None:
        """Room for so many bytes that arrive.

        Raises:
            LimitExceededError: there is none.
        """
        if media_type == JSON:
            argument_files.check_json_size(size)
        if size > self._max_bytes:
            raise _too_large(
                f"the arguments have more than {self._max_bytes} bytes: send less, or ask the node's admin for a "
                "higher limits.max_staged_bytes"
            )
        while (
            len(self._entries) >= MAX_STAGED
            or sum(each.size for each in self._entries.values()) + size > self._max_bytes
        ):
            idle = next((key for key, each in self._entries.items() if not (each.waits or each.users)), None)
            if idle is None:
                raise error(
                    Reason.PAYLOAD_QUOTA_EXCEEDED,
                    f"a run may have {MAX_STAGED} arguments of {self._max_bytes} bytes together wait for their "
                    "subtasks: ask those first, or ask the node's admin for a higher limits.max_staged_bytes",
                )
            file = self._entries.pop(idle).file
            await asyncio.to_thread(file.unlink, missing_ok=True)


async def _check(path: Path, media_type: str) -> None:
    """See that what has arrived is what its media type says; if not, it is removed."""
    if media_type != argument_files.MEDIA_TYPE:
        return
    try:
        await to_its_end(argument_files.look_into, path, 0)
    except BaseException:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise


def is_staged(arguments: types_pb2.Payload) -> bool:
    """Whether a question names staged arguments."""
    return arguments.WhichOneof("content") is None and bool(arguments.digest)


def _left(directory: Path) -> Iterator[tuple[_Key, _Entry]]:
    """What a former process has taken, the oldest first; what it had not finished is removed."""
    if not directory.is_dir():
        return
    media_types = {suffix: media_type for media_type, suffix in _SUFFIXES.items()}
    for file in sorted(directory.iterdir(), key=lambda each: each.stat().st_mtime):
        if (name := _FILE.fullmatch(file.name)) is not None:
            yield (media_types[name[2]], f"sha256:{name[1]}"), _Entry(file, file.stat().st_size, waits=False)
        else:
            file.unlink(missing_ok=True)


def _too_large(why: str) -> VantageError:
    return error(Reason.PAYLOAD_TOO_LARGE, why)
