"""``vantage node status``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

_GIB = 1024**3


@click.command(epilog="\b\nExample:\n  vantage node status --config /srv/node/node.yaml")
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("node.yaml"),
    show_default=True,
    help="The node's configuration.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(config_path: Path, output: str) -> None:
    """Show what a running node does: its runs, who waits for room, and what the server has not acknowledged."""
    from vantage.common.errors import ConfigurationError, VantageError
    from vantage.node import config
    from vantage.node.admin import ask

    try:
        document = ask(config.load(config_path).data_dir, "status")
    except VantageError as problem:
        click.echo(f"Error: {problem.message}", err=True)
        sys.exit(2 if isinstance(problem, ConfigurationError) else 1)
    click.echo(json.dumps(document, indent=2) if output == "json" else "\n".join(_lines(document)))


def _lines(document: dict[str, Any]) -> list[str]:
    connected = "connected to" if document["connected"] else "NOT CONNECTED to"
    taken, total = document["taken"], document["total"]
    room = [f"{taken['slots']} of {total['slots']} slots"]
    if total["cpus"]:
        room += [
            f"{taken['cpus']:g} of {total['cpus']:g} processors",
            f"{taken['memory'] / _GIB:.1f} of {total['memory'] / _GIB:.1f} GiB",
        ]
    if total["gpus"]:
        room.append(f"{taken['gpus']} of {total['gpus']} GPUs")
    lines = [
        f"{document['node']}: {connected} {document['server']}{', stopping' if document['stopping'] else ''}",
        f"taken: {', '.join(room)}; {document['waiting']} runs wait for room",
        f"not acknowledged by the server: {document['unacknowledged']} messages",
    ]
    for each in document["runs"]:
        attempt = f" (attempt {each['attempt']})" if each["attempt"] > 1 else ""
        lines.append(f"  {each['run']}{attempt} for {each['requester']}: {each['phase']} for {each['seconds']:.0f} s")
    return lines
