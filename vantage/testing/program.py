"""A program of vantage as a process of its own, as its operator starts it; tests and the demo wait for what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import IO, Self

PATIENCE = 60.0
"""Seconds until a program that does not say what was expected, or does not end, is given up."""


def vantage(*arguments: str | Path) -> list[str]:
    """Command line of ``vantage`` with this interpreter, whatever PATH says."""
    return [sys.executable, "-m", "vantage", *(str(each) for each in arguments)]


class Program:
    """A process whose output is kept in memory and in a file.

    Args:
        command: program and arguments.
        log: file that its output is appended to.

    Attributes:
        lines: what it has said, standard error included.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.command = list(command)
        self.log = log
        self.lines: list[str] = []
        self._changed = Condition()
        self._ended = True
        self._process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None

    @property
    def pid(self) -> int:
        """Its process, while it runs."""
        if self._process is None:
            raise RuntimeError("the program was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Exit status of the latest process, below zero when a signal has killed it; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def said(self) -> str:
        """Everything that it has said."""
        with self._changed:
            return "\n".join(self.lines)

    def start(self) -> Self:
        """Start it; ``wait_for`` tells when it is ready."""
        self.lines, self._ended = [], False
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,  # open until it has ended: some programs end with it
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1"},
        )
        self._reader = Thread(target=self._read, args=(self._process.stdout,), name="output", daemon=True)
        self._reader.start()
        return self

    def wait_for(self, text: str, timeout: float = PATIENCE, *, skip: int = 0) -> str:
        """Wait for a line that contains ``text`` and return it, or the first after so many others that do.

        Raises:
            AssertionError: it ended, or the time passed, without saying that.
        """

        def found() -> str | None:
            return next(islice((line for line in self.lines if text in line), skip, None), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._ended, timeout)
            line = found()
        if line is None:
            raise AssertionError(f"{' '.join(self.command[1:5])} has not said {text!r}:\n{self.said[-3000:]}")
        return line

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout: float | None = PATIENCE) -> int:
        """Wait for its end and return its exit status; all its output is then in ``lines``."""
        if self._process is None or self._reader is None:
            raise RuntimeError("the program was not started")
        status = self._process.wait(timeout)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._reader.join()
        return status

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and wait; one that does not is killed. Returns its exit status."""
        if self._process is None:
            return 0
        self.send(number)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill it, and wait."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self, output: IO[str]) -> None:
        """Take the output until the process ends: a full pipe would stop it."""
        with output, self.log.open("a") as log:
            for line in output:
                log.write(line)
                log.flush()
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
