"""Processes that outlive the demo when the network is kept: their output goes to files, their ids are written down."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

READY_SECONDS = 60
STOP_SECONDS = 30
FILE = "services.json"


class Trouble(Exception):
    """The demo cannot go on; the message says why, and what to do."""


class Services:
    """Starts processes and stops them in reverse order; ``directory`` remembers them.

    Args:
        directory: holds the logs and ``services.json``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = directory / FILE
        self._lock = Lock()
        self._running: list[dict[str, str]] = json.loads(self._file.read_text()) if self._file.exists() else []

    def start(self, name: str, command: Sequence[str], ready: str, **environment: str) -> str:
        """Start a process; returns what group 1 of ``ready`` matched in its output.

        Raises:
            Trouble: it ended, or did not get ready in time.
        """
        log = self.directory / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                # Ctrl-C in the terminal is for the demo, which ends them in order.
                start_new_session=True,
            )
        with self._lock:
            self._running.append({"name": name, "pid": str(process.pid), "started": _started(process.pid)})
            self._file.write_text(json.dumps(self._running, indent=1))
        found = _wait_for(log, process.pid, re.compile(ready))
        if found is None:
            raise Trouble(f"the {name} does not start; its last words:\n{_tail(log)}")
        return found

    def stop(self) -> None:
        """Stop all of them: ask, wait, and after a while insist."""
        while self._running:
            each = self._running[-1]
            _stop(int(each["pid"]), each["started"])
            self._running.pop()
            self._file.write_text(json.dumps(self._running, indent=1))


def _wait_for(log: Path, pid: int, pattern: re.Pattern[str]) -> str | None:
    """Follow a log until a line matches; None when the process has ended or the time is over."""
    command = ["timeout", str(READY_SECONDS), "tail", "-n", "+1", f"--pid={pid}", "-f", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as follower:
        assert follower.stdout is not None
        try:
            for line in follower.stdout:
                if (found := pattern.search(line)) is not None:
                    return found[1]
        finally:
            follower.terminate()
    return None


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])


def _started(pid: int) -> str:
    """When a process began, in ticks since the machine did; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _stop(pid: int, started: str) -> None:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # The id may belong to another program by now: the network may have been kept for days.
        if _started(pid) != started:
            return
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):  # a node finishes first, then cancels
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], STOP_SECONDS)[0]:
                break
        with contextlib.suppress(ChildProcessError):  # not ours when an earlier demo started it
            os.waitpid(pid, os.WNOHANG)
    finally:
        os.close(handle)
