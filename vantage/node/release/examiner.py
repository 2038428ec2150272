"""Holds a finished result against the terms of its run, before anything of it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from vantage.common.errors import Reason, VantageError, error
from vantage.common.names import new_id
from vantage.node.door import StoredResult
from vantage.node.release.looking import bare_type
from vantage.node.release.terms import Terms
from vantage.node.release.worker import MAX_SECONDS
from vantage.node.threads import to_its_end

log = logging.getLogger(__name__)

_AT_ONCE = 2
_GRACE_SECONDS = 10
_MAX_ANSWER = 64 * 1024


class Examiner:
    """Looks into results, a few at a time, each in a process of its own."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def examine(
        self, terms: Terms, result: StoredResult, make_room: Callable[[], Path]
    ) -> tuple[StoredResult, int]:
        """Check a result.

        Args:
            terms: of its run.
            result: as the algorithm gave it.
            make_room: makes the run's directory, if there is none yet; the caller removes it.

        Returns:
            What may leave, in place of the result when it was looked into, and how many parts of it were blanked. The
            file of the result stays: nothing is lost when the process ends now.

        Raises:
            RefusedError: DISCLOSURE_REFUSED.
            LimitExceededError: RESULT_TOO_LARGE.
            RunError: SCRATCH_UNAVAILABLE.
        """
        if terms.media_types is not None and bare_type(result.media_type) not in terms.media_types:
            allowed = ", ".join(sorted(terms.media_types)) or "none"
            raise withheld(f"results of its type do not leave; allowed are: {allowed}")  # it may be any text
        if not terms.looks:
            return result, 0
        try:
            source = await to_its_end(_file_of, result, make_room)
            target = source.with_name(f"released-{new_id()}")
            async with self._turn:
                blanked = await self._look(terms, result.media_type, source, target)
            return await asyncio.to_thread(_stored, result.media_type, target, terms.max_bytes), blanked
        except OSError as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                f"the node has no room to look into the result: {problem.strerror}: ask its admin to look at the disk",
            ) from problem

    async def _look(self, terms: Terms, media_type: str, source: Path, target: Path) -> int:
        question = {
            "media_type": media_type,
            "source": str(source),
            "target": str(target),
            "looks": [asdict(each) for each in terms.looks],
        }
        # -I: neither the directory nor the environment of this process has a say in what is imported; and no secrets.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "vantage.node.release.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            limit=_MAX_ANSWER,
        )
        try:
            async with asyncio.timeout(MAX_SECONDS + _GRACE_SECONDS):
                said, _nothing = await process.communicate(json.dumps(question).encode())
        except (TimeoutError, RuntimeError):  # the latter is what uvloop says of a child that ended before it was asked
            said = b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        try:
            answer = json.loads(said)
        except ValueError:
            log.warning("a result could not be looked into", extra={"exit_status": process.returncode})
            raise withheld("it is too large or too damaged to be looked into") from None
        if "withheld" in answer:
            raise withheld(str(answer["withheld"]))
        return int(answer["blanked"])


def withheld(why: str) -> VantageError:
    """The error that says so to the researcher: never with a value."""
    return error(Reason.DISCLOSURE_REFUSED, f"the node keeps the result: {why}: ask for less detail, or ask its admin")


def _file_of(result: StoredResult, make_room: Callable[[], Path]) -> Path:
    if isinstance(result.content, Path):
        return result.content
    path = make_room() / f"result-{new_id()}"
    path.write_bytes(result.content)
    return path


def _stored(media_type: str, path: Path, max_bytes: int | None) -> StoredResult:
    size = path.stat().st_size
    if max_bytes is not None and size > max_bytes:
        raise error(
            Reason.RESULT_TOO_LARGE, f"the result has {size} bytes when written anew, the node lets out {max_bytes}"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return StoredResult(media_type, path, size, f"sha256:{digest}")
