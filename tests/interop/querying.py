"""A function that leaves the work to a program in another language."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vantage.algorithm import Database, declaration_of, function

PROGRAM = str(Path(__file__).with_name("query.mjs"))


@function
def in_nodejs(db: Database, minimum: int) -> dict[str, Any]:
    """By the variables of libpq, from the SDK, and from the entry point for programs in other languages."""
    by_function = {**os.environ, **db.environment()}
    entry = [sys.executable, "-m", "vantage.algorithm", "connect", "--", "node", PROGRAM, str(minimum)]
    return {
        "function": json.loads(_output(["node", PROGRAM, str(minimum)], by_function)),
        "entry": json.loads(_output(entry, dict(os.environ))),
    }


def _output(command: list[str], environment: dict[str, str]) -> bytes:
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, close_fds=False).stdout


DECLARATION = declaration_of(__name__)
