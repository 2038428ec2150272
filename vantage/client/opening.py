"""Answers out of what was fetched: opened with one's keys, as a value in memory or as a file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vantage.client.packing import AT_ONCE
from vantage.client.payloads import Fetched
from vantage.client.values import decode, suffix_of
from vantage.common import sealing
from vantage.common.errors import Reason, error
from vantage.common.sealing import SealedPayload


async def value_of(
    fetched: Fetched, media_type: str, identities: Sequence[str], *, name: str, sealed: bool = False
) -> Any:
    """The value that was fetched; the path of its file, if it was fetched into one.

    Args:
        fetched: what came from the server; verified, if it can be.
        media_type: of the opened bytes.
        identities: keys that open it; none when it is not to be opened.
        name: of the file, without the suffix, which follows from the media type.
        sealed: whether it stays sealed.

    Raises:
        RefusedError: SEAL_INVALID.
        InvalidArgumentError: RESULT_NOT_SERIALIZABLE; INVALID_ARGUMENT, the file cannot be written.
    """
    if isinstance(fetched.content, Path):
        target = fetched.content.with_name(f"{name}{'.age' if sealed else suffix_of(media_type)}")
        await asyncio.to_thread(_write, fetched.content, target, identities)
        return target
    data = fetched.content
    if identities:
        payload = SealedPayload(data)
        if len(data) <= AT_ONCE:
            data = sealing.unseal(payload, identities)
        else:
            data = await asyncio.to_thread(sealing.unseal, payload, identities)
    return data if sealed else decode(media_type, data)


def _write(source: Path, target: Path, identities: Sequence[str]) -> None:
    """Complete or not at all; what was at the target before stays until then."""
    try:
        if not identities:
            source.replace(target)
            return
        part = source.with_name(f"{source.name}.opened")  # of this call alone, like the source
        try:
            with source.open("rb") as sealed, part.open("xb") as opened:
                sealing.unseal_stream(sealed, opened, identities)
                opened.flush()
                os.fsync(opened.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as problem:
        raise error(Reason.INVALID_ARGUMENT, f"cannot write {target!s:.200}: {problem.strerror}") from problem
