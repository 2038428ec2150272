"""The command line as real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 60.0
"""Seconds until a command that does not end is given up."""
GRACE = 10.0
"""Seconds until a program that was asked to end is asked again."""


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start ``vantage`` with pipes, in a process group of its own: signals to the test are not for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "vantage", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def call(*arguments: object, stdin: str = "", code: int = 0) -> tuple[str, str]:
    """Run ``vantage`` to its end and return what it wrote to stdout and stderr; it must end with this exit code."""
    program = start(*arguments)
    try:
        out, err = program.communicate(stdin, PATIENCE)
    finally:
        _end(program)
    if program.returncode != code:
        raise AssertionError(f"vantage {' '.join(map(str, arguments))}: {program.returncode} not {code}\n{out}\n{err}")
    return out, err


def call_json(*arguments: object, stdin: str = "") -> Any:
    """The same with ``--output json``, parsed."""
    return json.loads(call(*arguments, "--output", "json", stdin=stdin)[0])


@contextmanager
def running(*arguments: object, ready: str) -> Iterator[str]:
    """A program that runs until the block ends; yields its line of output that starts with ``ready``."""
    program = subprocess.Popen(
        [sys.executable, "-m", "vantage", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = []
        for line in program.stdout or ():
            said.append(line)
            if line.startswith(ready):
                break
        else:
            raise AssertionError(f"vantage {' '.join(map(str, arguments))} ended:\n{''.join(said)}")
        yield line
    finally:
        program.terminate()
        try:
            program.communicate(timeout=GRACE)  # what it says until its end must not block it
        except subprocess.TimeoutExpired:
            program.terminate()  # a node first lets its runs end
            program.communicate(timeout=PATIENCE)
        finally:
            _end(program)


def _end(program: subprocess.Popen[str]) -> None:
    if program.poll() is None:
        program.kill()
        program.communicate()
