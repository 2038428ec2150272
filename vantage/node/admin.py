"""The node's door for its own admin: a unix socket in the data directory, for commands on the same machine.

One question per connection: a line of JSON ``{"do": NAME, ...}``, answered by a line ``{"answer": ...}`` or
``{"error": {"reason": REASON, "message": TEXT}}``. Only the node's own user, and root, may ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from vantage.common.errors import Reason, UnavailableError, VantageError, error, from_wire
from vantage.node.sockets import short_address

log = logging.getLogger(__name__)

SOCKET_NAME = "admin.sock"
"""In the data directory."""
MAX_LINE = 4 * 1024 * 1024
"""Bytes of a question, and of an answer."""
_TIMEOUT = 10.0
_CREDENTIALS = struct.Struct("3i")
"""struct ucred: process, user, group."""

Command = Callable[[Mapping[str, Any], str], Awaitable[Any]]
"""Carries out a question of somebody, who is named for the audit log; the answer must be JSON."""


@asynccontextmanager
async def serve(directory: Path, commands: Mapping[str, Command]) -> AsyncGenerator[None, None]:
    """Answer commands while the context lasts. The directory must be held by this process.

    Raises:
        ConfigurationError: the socket cannot be made.
    """
    path = directory / SOCKET_NAME

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                answer = await _answer(commands, _who(writer.get_extra_info("socket")), await reader.readline())
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError) as problem:
            log.info("a command was not answered", extra={"problem": type(problem).__name__})
        finally:
            writer.close()

    try:
        path.unlink(missing_ok=True)  # of a process that was killed
        with short_address(path) as (address, _descriptors):
            server = await asyncio.start_unix_server(connected, address, limit=MAX_LINE)
            path.chmod(0o600)
    except OSError as problem:
        raise error(
            Reason.CONFIGURATION_INVALID, f"cannot make the socket {path}: {problem.strerror}: look at data_dir"
        ) from problem
    try:
        yield
    finally:
        server.close()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def ask(directory: Path, do: str, **fields: Any) -> Any:
    """Ask the node that runs with this data directory; for commands, blocking.

    Raises:
        UnavailableError: UNAVAILABLE, no node runs there, or it may not be asked by this user.
        VantageError: what the node says.
    """
    path = directory / SOCKET_NAME
    content = bytearray()
    with short_address(path) as (address, _descriptors), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(str(address))
            connection.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
            while not content.endswith(b"\n") and (part := connection.recv(65536)):
                content += part
        except OSError as problem:
            raise error(
                Reason.UNAVAILABLE,
                f"no node answers at {path} ({problem.strerror or type(problem).__name__}): is it running, and are you "
                "its user?",
            ) from problem
    try:
        answer = json.loads(content)
    except ValueError:
        raise UnavailableError(Reason.UNAVAILABLE, "the node stopped before it had answered: ask again") from None
    if "error" in answer:
        raise from_wire(answer["error"]["reason"], answer["error"]["message"], {})
    return answer["answer"]


async def _answer(commands: Mapping[str, Command], who: str | None, line: bytes) -> dict[str, Any]:
    try:
        if who is None:
            raise error(Reason.PERMISSION_DENIED, "only the user of the node, and root, may ask it")
        question = json.loads(line)
        command = commands.get(question["do"]) if isinstance(question, dict) and "do" in question else None
        if command is None:
            raise error(Reason.UNIMPLEMENTED, "the node does not know this command: are both of one version?")
        return {"answer": await command(question, who)}
    except VantageError as problem:
        return {"error": {"reason": problem.reason.name, "message": problem.message}}


def _who(connection: socket.socket) -> str | None:
    """Who asks, if it may: the kernel says so, not the other side."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _process, user, _group = _CREDENTIALS.unpack(raw)
    return f"uid {user}" if user in (0, os.geteuid()) else None
