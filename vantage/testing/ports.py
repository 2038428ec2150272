"""Ports of programs that cannot be told to let the system choose, or that come back where they were."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack


def free_ports(count: int = 1) -> list[int]:
    """Ports on loopback that nobody has now, all at once.

    None of those that the system gives to connections: one could get it before the program does, or while the program
    is away. On loopback, one to the program that is away would even succeed, with itself.
    """
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            port = random.randint(20_000, 32_000)  # noqa: S311  # below the usual range
            trial = stack.enter_context(socket.socket())
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found
