"""Answers out of what was fetched: opened with one's keys, as a value in memory or as a file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vantage.client.packing import AT_ONCE
from vantage.client.payloads import Fetched
from vantage.client.values import decode
from vantage.common import sealing
from vantage.common.errors import Reason, error
from vantage.common.media_types import suffix_of
from vantage.common.sealing import SealedPayload


async def value_of(
    fetched: Fetched, media_type: str, identities: Sequence[str], *, name: str, sealed: bool = False
) -> Any:
    """The value that was fetched; the path of its file, if it was fetched into one.

    Args:
        fetched: what came from the server; verified, if it can be. A file was opened when it came, if at all.
        media_type: of the opened bytes.
        identities: keys that open what is in memory; none when it is not to be opened.
        name: of the file, without the suffix, which follows from the media type.
        sealed: whether it stays sealed.

    Raises:
        RefusedError: SEAL_INVALID.
        InvalidArgumentError: RESULT_NOT_SERIALIZABLE; INVALID_ARGUMENT, the file cannot be written.
    """
    if isinstance(fetched.content, Path):
        if fetched.problem is not None:
            raise fetched.problem
        target = fetched.content.with_name(f"{name}{'.age' if sealed else suffix_of(media_type)}")
        try:
            # Complete or not at all; what was at the target before stays until then.
            await asyncio.to_thread(fetched.content.replace, target)
        except OSError as problem:
            raise error(Reason.INVALID_ARGUMENT, f"cannot write {target!s:.200}: {problem.strerror}") from problem
        return target
    data = fetched.content
    if identities:
        payload = SealedPayload(data)
        if len(data) <= AT_ONCE:
            data = sealing.unseal(payload, identities)
        else:
            data = await asyncio.to_thread(sealing.unseal, payload, identities)
    return data if sealed else decode(media_type, data)
