"""Arguments into the targets of a task: as they are, or sealed to the nodes that may get them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.client.models import Question, Target
from vantage.client.payloads import Payloads
from vantage.common import argument_files, sealing
from vantage.common.argument_files import Archive, ArgumentFile
from vantage.common.argument_values import GivenFiles, encode_arguments
from vantage.common.bound_arguments import line_of
from vantage.common.data_questions import KEY, split_references
from vantage.common.errors import Reason, error
from vantage.common.media_types import JSON
from vantage.common.recipients import Recipients, shared
from vantage.common.sealed_file import seal_file

MAX_INLINE_TOTAL = 8 * 1024 * 1024
"""Bytes of all arguments inside one message, which has a limit: with many targets, smaller ones are uploaded, too."""
AT_ONCE = 64 * 1024
"""Sealing and opening so many bytes takes no longer than going to another thread."""

Arguments = Mapping[str, Any] | Path | None
Files = Mapping[str, Any]
"""Data parameter -> file, a table (``pandas.DataFrame`` or ``pyarrow.Table``), or bytes."""
_Source = bytes | Path | Archive


@dataclass(frozen=True)
class Given:
    """What one target gets."""

    arguments: Arguments = None
    files: Files = field(default_factory=dict)


class Packer:
    """Packs arguments.

    Args:
        payloads: uploads what is large.
    """

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads

    async def plain(self, spec: task_pb2.TaskSpec, given: Sequence[Given], request_id: str) -> None:
        """Put arguments into targets as they are, each different one uploaded at most once, also when the question with
        this request id is asked again: it must then have the same bytes."""
        limit = _inline_limit(given)
        async with _alike(given) as alike:
            for source, positions in alike:
                async with _as_file(source) as content:
                    payload = await self._payloads.pack(content, _media_type(source), limit, question=request_id)
                for position in positions:
                    spec.targets[position].arguments.CopyFrom(payload)

    async def sealed(
        self,
        spec: task_pb2.TaskSpec,
        given: Sequence[Given],
        recipients: Sequence[Recipients],
        requester: str,
    ) -> None:
        """Put arguments into targets, sealed to their recipients for an order of the requester.

        The same arguments of several targets are sealed and uploaded once, to all who get them.
        """
        lead = line_of(requester)
        limit = _inline_limit(given)
        async with _alike(given) as alike:
            for source, positions in alike:
                for group, whom in shared(positions, dict(enumerate(recipients))):
                    async with _seal(source, whom, lead) as (content, digest, size):
                        payload = await self._payloads.pack(content, _media_type(source), limit, digest)
                    payload.sealing = types_pb2.SEALING_AGE_V1
                    payload.digest, payload.size_bytes = digest, size
                    for position in group:
                        spec.targets[position].arguments.CopyFrom(payload)


def given_of(chosen: Sequence[Target], question: Question) -> list[Given]:
    """What each target gets, with what it asks of datasets; the same arguments for several targets are one object.

    Raises:
        InvalidArgumentError: a dataset is malformed, or there is no room for its question.
    """
    merged: dict[tuple[int, str], Arguments] = {}
    found: list[Given] = []
    for each in chosen:
        own: Arguments = each.arguments if each.arguments is not None else question.arguments
        _, asked = split_references(each.datasets if each.datasets is not None else question.datasets)
        if asked:
            if isinstance(own, Path) or (own is not None and KEY in own):
                raise error(
                    Reason.INVALID_ARGUMENT,
                    f"questions to datasets are sent with the arguments: give these as a dictionary without {KEY}, or "
                    f"name the datasets alone and put the questions into the arguments as {KEY}",
                    field="datasets",
                )
            key = (id(own), json.dumps(asked, sort_keys=True))
            own = merged.setdefault(key, {**(own or {}), KEY: asked})
        found.append(Given(own, each.files if each.files is not None else question.files))
    return found


def _media_type(source: _Source) -> str:
    return argument_files.MEDIA_TYPE if isinstance(source, Archive) else JSON


def _inline_limit(given: Sequence[Given]) -> int:
    return MAX_INLINE_TOTAL // max(len(given), 1)


@asynccontextmanager
async def _alike(given: Sequence[Given]) -> AsyncIterator[list[tuple[_Source, list[int]]]]:
    """Different arguments, each with the positions of the targets that get them."""
    groups: dict[tuple[bytes | Path, tuple[ArgumentFile, ...]], list[int]] = {}
    known: dict[int, bytes | Path] = {}
    values = GivenFiles()
    try:
        for position, each in enumerate(given):
            # The task's arguments are the same object for all targets: a thousand times they are not written out.
            key = id(each.arguments)
            if key not in known:
                known[key] = each.arguments if isinstance(each.arguments, Path) else encode_arguments(each.arguments)
                argument_files.check_json_size(await asyncio.to_thread(_size, known[key]))
            files = await asyncio.to_thread(values.files_of, each.files) if each.files else ()
            groups.setdefault((known[key], files), []).append(position)
        yield [
            (await asyncio.to_thread(Archive, arguments, files) if files else arguments, positions)
            for (arguments, files), positions in groups.items()
        ]
    finally:
        await asyncio.to_thread(values.close)


def _size(arguments: bytes | Path) -> int:
    if isinstance(arguments, bytes):
        return len(arguments)
    # That there is no such file is said when it is opened.
    return arguments.stat().st_size if arguments.exists() else 0


@asynccontextmanager
async def _as_file(source: _Source) -> AsyncIterator[bytes | Path]:
    """The source itself, or for an archive a file that holds it, which goes away in the end."""
    if not isinstance(source, Archive):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="vantage-") as directory:
        target = Path(directory) / "arguments.tar"
        await asyncio.to_thread(_copy, source, target)
        yield target


@asynccontextmanager
async def _seal(
    source: _Source, recipients: Sequence[str], lead: bytes
) -> AsyncIterator[tuple[bytes | Path, str, int]]:
    """The sealed bytes, or for a file a sealed file, which goes away in the end; their digest and number."""
    if isinstance(source, bytes):
        if len(source) <= AT_ONCE:
            sealed, digest = _seal_bytes(lead + source, recipients)
        else:
            sealed, digest = await asyncio.to_thread(_seal_bytes, lead + source, recipients)
        yield sealed, digest, len(sealed)
        return
    with tempfile.TemporaryDirectory(prefix="vantage-") as directory:
        target = Path(directory) / "arguments.age"
        digest, size = await asyncio.to_thread(_seal_file, source, target, recipients, lead)
        yield target, digest, size


def _seal_bytes(content: bytes, recipients: Sequence[str]) -> tuple[bytes, str]:
    sealed = sealing.seal(content, recipients).content
    return sealed, f"sha256:{hashlib.sha256(sealed).hexdigest()}"


def _copy(source: Archive, target: Path) -> None:
    with _opened(source) as content, target.open("wb") as file:
        shutil.copyfileobj(content, file, io.DEFAULT_BUFFER_SIZE * 128)


def _seal_file(source: Path | Archive, target: Path, recipients: Sequence[str], lead: bytes) -> tuple[str, int]:
    with _opened(source) as plain:
        return seal_file(plain, target, recipients, lead=lead)


@contextlib.contextmanager
def _opened(source: Path | Archive) -> Iterator[BinaryIO]:
    try:
        with source.open("rb") if isinstance(source, Path) else source.open() as content:
            yield content
    except OSError as problem:
        where = f" {source!s:.200}" if isinstance(source, Path) else ""
        raise error(
            Reason.INVALID_ARGUMENT, f"cannot read or seal the arguments{where}: {problem.strerror or problem}"
        ) from problem
