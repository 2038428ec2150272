"""An algorithm that does what algorithms should not do."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from vantage.algorithm import DataFrame, function


@function
def echo(value: int) -> int:
    """The argument."""
    return value


@function
def count(df: DataFrame) -> int:
    """How many records there are."""
    return len(df)


@function
def fail() -> int:
    """Raise, with data in the message."""
    raise ValueError("could not convert 'Jansen' to float")


@function
def crash() -> int:
    """End without a word to the node."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


@function
def silent() -> int:
    """End as if all were well, without an answer."""
    os._exit(0)


@function
def chatty(megabytes: int) -> int:
    """Print that much."""
    block = "patient\n" * 131_072
    for _ in range(megabytes):
        sys.stdout.write(block)
    return megabytes


@function
def large(megabytes: int) -> bytes:
    """Return that much."""
    return bytes(megabytes * 1024 * 1024)


@function
def endless(stubborn: bool = False) -> int:
    """Never end; when stubborn, not even when asked to."""
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


@function
def bomb() -> int:
    """Fork without end, and so do the children."""
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)


@function
def hungry() -> int:
    """Take memory until there is none."""
    kept = []
    while True:
        kept.append(b"x" * 16 * 1024 * 1024)


@function
def hoard() -> int:
    """Fill the scratch area."""
    with Path("/tmp/hoard").open("wb") as file:
        for _ in range(100_000):
            file.write(bytes(1024 * 1024))
    return 0
