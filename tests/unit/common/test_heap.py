"""Memory of messages is used again, not fetched from the system for each."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

_PROGRAM = """
import sys
from resource import RUSAGE_SELF, getrusage
if sys.argv[1] == "kept":
    from vantage.common.heap import keep_freed_memory
    keep_freed_memory()
MESSAGE = b"x" * (1024 * 1024)
for number in range(110):
    if number == 10:
        before = getrusage(RUSAGE_SELF).ru_minflt
    copies = [bytearray(MESSAGE) for _ in range(6)]
    del copies
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in their own way")
def test_large_messages_one_after_the_other_use_the_same_memory() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, check=True).stdout)
        for how in ("kept", "not")
    }
    pages = 6 * 100 * 1024 * 1024 // resource.getpagesize()
    if faults["not"] < pages / 10:
        pytest.skip("what the interpreter freed when it started has told the C library already")
    assert faults["kept"] < pages / 100
