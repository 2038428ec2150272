"""``vantage node approvals``: what waits for a person at the data station, and what they decide."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vantage.common.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("node.yaml"),
    show_default=True,
    help="The node's configuration.",
)
_OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)


@click.group()
def approvals() -> None:
    """Decide about runs and results that wait for you (policy.release, approval). The node must be running."""


@approvals.command("list", epilog="\b\nExample:\n  vantage node approvals list --config /srv/node/node.yaml")
@_CONFIG
@_OUTPUT
def list_waiting(config_path: Path, output: str) -> None:
    """Show what waits, the oldest first."""
    with _node(config_path) as directory:
        items = _ask(directory, "approvals.list")
    if output == "json":
        click.echo(json.dumps(items, indent=2))
        return
    if not items:
        click.echo("nothing waits")
    for each in items:
        size = f", {each['size']} bytes" if each["kind"] != "run" else ""
        what = f"{each['function']} of {each['image']}{size}"
        click.echo(one_line(f"{each['id']}  {each['kind']:<8}  {each['requester']}  {what}"))


@approvals.command("show", epilog="\b\nExample:\n  vantage node approvals show 3f2a9c01bd")
@click.argument("name", metavar="ID")
@_CONFIG
@_OUTPUT
def show(name: str, config_path: Path, output: str) -> None:
    """Show who asks what, and what would leave: size, media type, the beginning, and the file that holds all of it."""
    with _node(config_path) as directory:
        item = _ask(directory, "approvals.show", id=name)
    if output == "json":
        click.echo(json.dumps(item, indent=2))
        return
    for title, value in (
        ("what", item["kind"]),
        ("asked by", f"{item['requester']} in {item['collaboration']}"),
        ("image", item["image"]),
        ("function", item["function"]),
        ("datasets", ", ".join(item["datasets"]) or "none"),
        ("run", item["run"]),
        ("since", item["since"]),
        ("until", item["deadline"]),
    ):
        click.echo(one_line(f"{title + ':':<11}{value}"))
    if item["kind"] != "run":
        click.echo(one_line(f"{'leaves:':<11}{item['size']} bytes, {item['media_type']}, {item['digest']}"))
        click.echo(f"{'file:':<11}{item['file']}")
    if "preview" in item:
        click.echo(f"it begins:\n{item['preview']}")


@approvals.command("allow", epilog="\b\nExample:\n  vantage node approvals allow 3f2a9c01bd")
@click.argument("name", metavar="ID")
@_CONFIG
def allow(name: str, config_path: Path) -> None:
    """Let it go on. For a first run: also all later runs of this function of this very image."""
    with _node(config_path) as directory:
        item = _ask(directory, "approvals.decide", id=name, allow=True)
    click.echo(f"allowed: {item['kind']} {name}")


@approvals.command("deny", epilog="\b\nExample:\n  vantage node approvals deny 3f2a9c01bd --message 'too few patients'")
@click.argument("name", metavar="ID")
@click.option("--message", default="", help="For the researcher, at most 500 characters.")
@_CONFIG
def deny(name: str, message: str, config_path: Path) -> None:
    """Let nothing of it leave; the researcher is told APPROVAL_DENIED and your message."""
    with _node(config_path) as directory:
        item = _ask(directory, "approvals.decide", id=name, allow=False, told=message)
    click.echo(f"denied: {item['kind']} {name}")


def _ask(directory: Path, do: str, **fields: object) -> Any:
    from vantage.node.admin import ask

    return ask(directory, do, **fields)


@contextmanager
def _node(config_path: Path) -> Iterator[Path]:
    """The data directory of the node."""
    from vantage.common.errors import ConfigurationError, VantageError
    from vantage.node import config

    try:
        yield config.load(config_path).data_dir
    except VantageError as problem:
        click.echo(f"Error: {problem.message}", err=True)
        sys.exit(2 if isinstance(problem, ConfigurationError) else 1)
