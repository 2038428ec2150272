"""The command line at a terminal: a person who reads and types."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

PATIENCE = 60.0
"""Seconds until a program that does not end is given up."""


class Terminal:
    """A pseudo-terminal with a program in it.

    Attributes:
        shown: everything that it has shown so far.
    """

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self.process = process
        self.shown = ""

    @classmethod
    @contextmanager
    def with_(cls, *arguments: object) -> Iterator[Self]:
        """Start ``vantage`` in a terminal of its own."""
        with cls.running(sys.executable, "-m", "vantage", *arguments) as started:
            yield started

    @classmethod
    @contextmanager
    def running(cls, *command: object) -> Iterator[Self]:
        """Start a program in a terminal of its own."""
        master, slave = pty.openpty()
        try:
            process = subprocess.Popen(
                [*map(str, command)],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
            )
        finally:
            os.close(slave)
        try:
            yield cls(master, process)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(master)

    def wait_for(self, text: str) -> None:
        """Read until the text is shown.

        Raises:
            AssertionError: the program ended first.
        """
        start = len(self.shown)
        while text not in self.shown[start:]:
            content = self._read()
            if not content:
                raise AssertionError(f"it ended before it showed {text!r}:\n{self.shown}")
            self.shown += content

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._master, f"{line}\n".encode())

    def end(self) -> int:
        """Read to the end and return the exit code."""
        while content := self._read():
            self.shown += content
        return self.process.wait(PATIENCE)

    def _read(self) -> str:
        try:
            return os.read(self._master, 65_536).decode(errors="replace")
        except OSError:  # Linux says so when the other side is closed
            return ""
