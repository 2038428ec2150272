"""The author's tools: print a declaration, try an algorithm on files."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.functions import declare


def main(arguments: list[str]) -> int:
    """Run one command; 0 when it worked, 1 when the algorithm failed, 2 for wrong use."""
    parser = argparse.ArgumentParser(
        prog="python3 -m vantage.algorithm", description="Without a command: run in a node's container."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    declaring = commands.add_parser("declare", help="print the value of the image label org.vantage.declaration")
    declaring.add_argument("module")
    running = commands.add_parser("run", help="run a function on files, without server and node")
    running.add_argument("module")
    running.add_argument("function")
    running.add_argument("--arguments", default="{}", help="JSON object: argument -> value")
    running.add_argument("--data", action="append", default=[], metavar="ORGANIZATION:DATASET=FILE")
    running.add_argument("--organization", help="where to run; the first of --data when left out")
    connecting = commands.add_parser("connect", help="run a program in a node's container, with its databases in reach")
    connecting.add_argument("program", nargs="+", metavar="-- PROGRAM ARGUMENT")
    given = parser.parse_args(arguments)
    if given.command == "connect":
        from vantage.algorithm import connecting as program

        if (problem := program.missing(os.environ)) is not None:
            parser.error(problem)
        return program.main(given.program, os.environ)
    try:
        values = json.loads(given.arguments) if given.command == "run" else {}
        data = _data(given.data) if given.command == "run" else {}
    except ValueError as problem:
        parser.error(str(problem))
    if not isinstance(values, dict):
        parser.error("--arguments must be a JSON object")
    # As in the container, where the working directory holds the module.
    sys.path.insert(0, str(Path.cwd()))
    try:
        if given.command == "declare":
            print(declare(importlib.import_module(given.module)).dumps())
            return 0
        from vantage.algorithm.local import run_module

        _show(run_module(given.module, given.function, values, data, given.organization))
    except AlgorithmError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def _data(entries: list[str]) -> dict[str, dict[str, str]]:
    data: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in entries:
        place, equals, path = entry.partition("=")
        organization, colon, dataset = place.partition(":")
        if not (equals and colon and organization and dataset and path):
            raise ValueError(f"--data {entry}: write ORGANIZATION:DATASET=FILE")
        data[organization][dataset] = path
    return dict(data)


def _show(value: Any) -> None:
    if isinstance(value, bytes):
        sys.stdout.buffer.write(value)
    elif type(value).__module__.startswith("pyarrow"):
        print(value.to_pandas().to_string())
    else:
        print(json.dumps(value, indent=2))
