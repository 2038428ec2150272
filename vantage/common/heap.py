"""What becomes of memory that messages leave behind."""

from __future__ import annotations

import functools

_KEPT = 4 * 1024 * 1024
"""Twice as much holds the copies that are made of the largest message of a relay on its way through a process."""


@functools.cache
def keep_freed_memory() -> None:
    """Let this process use the memory of one large message for the next one.

    At first the C library takes memory for more than 128 KiB from the system, and gives it back at once: each message
    of 1 MiB then costs hundreds of page faults, which take longer than sealing it. The library adapts to the largest
    block that was freed (mallopt(3), M_MMAP_THRESHOLD), and keeps up to twice as much, here 8 MiB. With other C
    libraries than glibc nothing happens.
    """
    bytes(_KEPT)  # never touched, so that it costs no memory
