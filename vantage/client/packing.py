"""Arguments into the targets of a task: as they are, or sealed to the nodes that may get them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.client.payloads import Payloads
from vantage.client.values import JSON, encode_arguments
from vantage.common import sealing
from vantage.common.bound_arguments import line_of
from vantage.common.errors import Reason, error
from vantage.common.recipients import Recipients
from vantage.common.sealing import MAX_RECIPIENTS

MAX_INLINE_TOTAL = 8 * 1024 * 1024
"""Bytes of all arguments inside one message, which has a limit: with many targets, smaller ones are uploaded, too."""
AT_ONCE = 64 * 1024
"""Sealing and opening so many bytes takes no longer than going to another thread."""

Arguments = Mapping[str, Any] | Path | None
_Source = bytes | Path


class Packer:
    """Packs arguments.

    Args:
        payloads: uploads what is large.
    """

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads

    async def plain(self, spec: task_pb2.TaskSpec, arguments: Sequence[Arguments]) -> None:
        """Put arguments into targets as they are, each different one uploaded at most once."""
        limit = _inline_limit(arguments)
        for source, positions in _alike(arguments):
            payload = await self._payloads.pack(source, JSON, limit)
            for position in positions:
                spec.targets[position].arguments.CopyFrom(payload)

    async def sealed(
        self,
        spec: task_pb2.TaskSpec,
        arguments: Sequence[Arguments],
        recipients: Sequence[Recipients],
        requester: str,
    ) -> None:
        """Put arguments into targets, sealed to their recipients for an order of the requester.

        The same arguments of several targets are sealed and uploaded once, to all who get them.
        """
        lead = line_of(requester)
        limit = _inline_limit(arguments)
        for source, positions in _alike(arguments):
            for group in _groups(positions, recipients):
                whom = list(dict.fromkeys(each for position in group for each in recipients[position].recipients))
                async with _seal(source, whom, lead) as content:
                    digest, size = await asyncio.to_thread(_measure, content)
                    payload = await self._payloads.pack(content, JSON, limit, digest)
                payload.sealing = types_pb2.SEALING_AGE_V1
                payload.digest, payload.size_bytes = digest, size
                for position in group:
                    spec.targets[position].arguments.CopyFrom(payload)


def _inline_limit(arguments: Sequence[Arguments]) -> int:
    return MAX_INLINE_TOTAL // max(len(arguments), 1)


def _alike(arguments: Sequence[Arguments]) -> Iterator[tuple[_Source, list[int]]]:
    """Different arguments, each with the positions of the targets that get them."""
    groups: dict[_Source, list[int]] = {}
    known: dict[int, _Source] = {}
    for position, each in enumerate(arguments):
        # The task's arguments are the same object for all targets: a thousand times they are not written out.
        source = known.get(id(each))
        if source is None:
            source = known[id(each)] = each if isinstance(each, Path) else encode_arguments(each)
        groups.setdefault(source, []).append(position)
    yield from groups.items()


def _groups(positions: Sequence[int], recipients: Sequence[Recipients]) -> Iterator[list[int]]:
    """Targets that share one sealed payload, which has a limit of recipients."""
    group: list[int] = []
    whom: set[str] = set()
    for position in positions:
        more = set(recipients[position].recipients)
        if group and len(whom | more) > MAX_RECIPIENTS:
            yield group
            group, whom = [], set()
        group.append(position)
        whom |= more
    if group:
        yield group


@asynccontextmanager
async def _seal(source: _Source, recipients: Sequence[str], lead: bytes) -> AsyncIterator[_Source]:
    """The sealed bytes, or for a file a sealed file, which goes away in the end."""
    if isinstance(source, bytes):
        if len(source) <= AT_ONCE:
            yield sealing.seal(lead + source, recipients).content
        else:
            yield (await asyncio.to_thread(sealing.seal, lead + source, recipients)).content
        return
    with tempfile.TemporaryDirectory(prefix="vantage-") as directory:
        target = Path(directory) / "arguments.age"
        await asyncio.to_thread(_seal_file, source, target, recipients, lead)
        yield target


def _seal_file(source: Path, target: Path, recipients: Sequence[str], lead: bytes) -> None:
    with contextlib.ExitStack() as stack:
        try:
            plain = stack.enter_context(source.open("rb"))
        except OSError as problem:
            raise error(Reason.INVALID_ARGUMENT, f"cannot read {source!s:.200}: {problem.strerror}") from problem
        sealing.seal_stream(plain, stack.enter_context(target.open("wb")), recipients, lead=lead)


def _measure(content: _Source) -> tuple[str, int]:
    if isinstance(content, bytes):
        return f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)
    with content.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", content.stat().st_size
