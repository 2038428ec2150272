"""Executor without a sandbox, for development and for measuring everything but the container.

Two ways, chosen by the module: a module with ``IN_PROCESS = True`` is called inside the node, which costs next to
nothing; any other runs as ``python -m vantage.algorithm`` in a process group of its own, just as in an image.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import inspect
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vantage.common.errors import Reason, VantageError, error
from vantage.node.door import SOCKET_NAME, Door, StoredResult
from vantage.node.executor.base import Existing, Exit, Found, Job, UnsandboxedCode
from vantage.node.sockets import short_address

_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
_MAX_LINE_BYTES = 64 * 1024
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "HOME", "TMPDIR")


class ProcessExecutor:
    """Keeps ``Executor`` without any isolation.

    Args:
        allow_unsandboxed: must be True; the caller shows that its configuration says so.

    Raises:
        ConfigurationError: the configuration does not allow it.
    """

    def __init__(self, *, allow_unsandboxed: bool) -> None:
        if not allow_unsandboxed:
            raise error(
                Reason.CONFIGURATION_INVALID,
                "the process executor has no sandbox: set allow_unsandboxed: true on a machine without real data, or "
                "use executor: docker",
            )

    async def run(self, job: Job, door: Door) -> Exit:
        """See ``Executor``."""
        if not isinstance(job.code, UnsandboxedCode):
            raise error(Reason.EXECUTOR_UNAVAILABLE, "the process executor runs modules, not images")
        module = importlib.import_module(job.code.module)
        if getattr(module, "IN_PROCESS", False):
            return await _call(getattr(module, door.context.function), door)
        return await self._spawn(job, job.code, door)

    async def adopt(self, existing: Existing, door: Door) -> Exit:
        """See ``Executor``: there is nothing to go on with."""
        raise error(Reason.NODE_LOST, "processes without a sandbox end with their node: ask again")

    async def remove(self, existing: Existing) -> None:
        """See ``Executor``: there is nothing."""

    async def clean_up(self, held: Collection[Existing] = ()) -> Found:
        """See ``Executor``: processes end with the node, since they are in its session and have its pipes."""
        return Found()

    def leave(self) -> None:
        """See ``Executor``: nothing can be left."""

    async def close(self) -> None:
        """See ``Executor``."""

    async def _spawn(self, job: Job, code: UnsandboxedCode, door: Door) -> Exit:
        async with contextlib.AsyncExitStack() as stack:
            directory = await stack.enter_async_context(door.served())
            socket, inherited = stack.enter_context(short_address(directory / SOCKET_NAME))
            environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            environment |= {
                **job.environment,
                "VANTAGE_SOCKET": str(socket),
                "VANTAGE_TOKEN": door.context.token,
                "VANTAGE_MODULE": code.module,
            }
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "vantage.algorithm",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                cwd=door.scratch,
                start_new_session=True,
                pass_fds=inherited,
                limit=_MAX_LINE_BYTES,
            )
            try:
                door.started()
                assert process.stdout is not None  # noqa: S101  # it was asked for
                async for line in _lines(process.stdout):
                    door.line(line)
                status = await process.wait()
            finally:
                await _end(process)
        return Exit(128 - status if status < 0 else status)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Leave nothing of the process group behind."""
    group = process.pid
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)  # what the leader left behind as well
    await process.wait()


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines of any length: what does not fit into the buffer is handed on in pieces."""
    while True:
        try:
            line = await stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as rest:
            line = rest.partial
        except asyncio.LimitOverrunError as problem:
            line = await stream.readexactly(max(problem.consumed, 1))
        if not line:
            return
        yield line.decode(errors="replace").rstrip("\r\n")


async def _call(function: Any, door: Door) -> Exit:
    """Call a function of an in-process module: arguments by name, data parameters as paths, ``door`` if it asks."""
    context = door.context
    arguments: dict[str, Any] = json.loads(context.arguments)
    arguments |= {bound.parameter: Path(bound.path) for bound in context.datasets}
    if "door" in _parameters(function):
        arguments["door"] = door
    door.started()
    try:
        if inspect.iscoroutinefunction(function):
            answer = await function(**arguments)
        else:
            answer = await asyncio.to_thread(function, **arguments)
    except VantageError as problem:
        await door.callbacks.failure(problem.reason.name, problem.message)
        return Exit(1)
    except Exception as problem:  # noqa: BLE001  # an algorithm may raise anything: its failure, not the node's
        door.line(f"{type(problem).__name__}: {problem}")
        return Exit(1)
    if answer is not None:
        with contextlib.suppress(VantageError):  # the door remembers why it was not taken
            await door.callbacks.result(_result(answer))
    return Exit(0)


@cache
def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _result(answer: bytes | Mapping[str, Any]) -> StoredResult:
    if isinstance(answer, bytes):
        media_type, content = "application/octet-stream", answer
    else:
        media_type, content = "application/json", json.dumps(answer, separators=(",", ":")).encode()
    return StoredResult(media_type, content, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")
