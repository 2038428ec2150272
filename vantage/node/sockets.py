"""Addresses of sockets in directories whose paths are longer than an address may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAX_PATH = 100
"""The kernel takes 107 bytes."""


@contextmanager
def short_address(path: Path) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """Another path of a socket, by a descriptor of its directory, where its own is too long for an address.

    Yields:
        The path, valid until this is left, and the descriptors that another process must inherit to use it.
    """
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield path, ()
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{descriptor}") / path.name, (descriptor,)
    finally:
        os.close(descriptor)
