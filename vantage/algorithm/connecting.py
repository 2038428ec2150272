"""``python3 -m vantage.algorithm connect -- PROGRAM ...``: a program in any language, with what it was given in reach.

The program finds databases and hosts at ordinary ports, and talks to the node's local API itself for the rest: its
arguments and its result. Entry point of images whose algorithm is not in Python.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import grpc

from vantage.algorithm.database import Database
from vantage.algorithm.invoke import Source
from vantage.algorithm.runtime import OPTIONS, GrpcDoor


def main(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program.

    Args:
        command: program and arguments.
        environment: VANTAGE_SOCKET and VANTAGE_TOKEN from the node.

    Returns:
        Its exit status; 128 + n for signal n; 127 when it cannot be started.
    """
    target = f"unix:{environment['VANTAGE_SOCKET']}"
    with (
        grpc.insecure_channel(target, options=OPTIONS) as channel,
        contextlib.closing(GrpcDoor(channel, environment["VANTAGE_TOKEN"], target)) as door,
    ):
        asked = door.context()
        sources = {each.parameter: door.source(each) for each in asked.datasets}
        given = {**environment, **door.proxies(asked.egress), **_variables(sources)}
        try:
            # The socket's path may lead through a descriptor of this process.
            program = subprocess.Popen(command, env=given, close_fds=False)
        except OSError as problem:
            print(f"{command[0]} cannot be started: {problem.strerror}", file=sys.stderr)
            return 127
        signal.signal(signal.SIGTERM, lambda *_: program.terminate())
        status = program.wait()
    return 128 - status if status < 0 else status


def _variables(sources: Mapping[str, Source]) -> dict[str, str]:
    """``VANTAGE_DATA_PARAMETER`` is the path of a dataset, for a database that of the folder with its credentials, and
    ``VANTAGE_DATA_PARAMETER_HOST``, ``_PORT``, ``_DATABASE`` say where it is. libpq's variables lead to the only
    database of PostgreSQL, if there is one."""
    variables: dict[str, str] = {}
    databases: list[Database] = []
    for parameter, source in sources.items():
        name = f"VANTAGE_DATA_{parameter.upper()}"
        variables[name] = str(source.path)
        if source.database is not None:
            host, port = source.database.address
            variables |= {f"{name}_HOST": host, f"{name}_PORT": str(port), f"{name}_DATABASE": source.database.database}
            if source.database.dialect == "postgresql":
                databases.append(source.database)
    if len(databases) == 1:
        variables |= databases[0].environment()
    return variables


def missing(environment: Mapping[str, str]) -> str | None:
    """What is missing to run in a node; None when nothing is."""
    absent = [name for name in ("VANTAGE_SOCKET", "VANTAGE_TOKEN") if not environment.get(name)]
    return f"{', '.join(absent)} not set: this runs in a node" if absent else None
