"""``vantage apply`` and ``vantage export``."""

from __future__ import annotations

from pathlib import Path

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command


@command(None, "apply", "vantage apply -f network.yaml", "vantage apply -f network.yaml --yes")
@click.option(
    "-f",
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The description; 'vantage export' writes one.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def apply(call: Call, path: Path, yes: bool) -> None:
    """Bring the server to the state that a file describes.

    Shows the difference first and asks. What the file does not name is left alone. A step that cannot be taken yet,
    e.g. because an organization has not accepted its invitation, does not keep the others from being taken: run the
    command again later.
    """
    from vantage.client import network
    from vantage.common.errors import Reason, VantageError, error

    wanted = network.load(path)
    with call.client() as client:
        changes = network.plan(client, wanted)
        if not changes:
            call.output.done("nothing to do: the server is as described", {"changes": [], "problems": []})
            return
        for change in changes:
            call.output.note(str(change))
        terminal.confirm(f"Make these {len(changes)} changes?", yes=yes)
        done, problems = [], []
        for change in changes:
            try:
                told = change.run(client)
            except VantageError as problem:
                problems.append(f"{change}: {problem}")
                continue
            done.append(str(change))
            if isinstance(told, str):
                call.output.note(told)
    for each in problems:
        call.output.note(f"not done: {each}")
    call.output.done(f"made {len(done)} of {len(changes)} changes", {"changes": done, "problems": problems})
    if problems:
        raise error(
            Reason.IN_USE, f"{len(problems)} changes could not be made: see above, and run the command again later"
        )


@command(None, "export", "vantage export > network.yaml")
def export(call: Call) -> None:
    """Print what the server has, as far as you see it, for 'vantage apply'.

    Never passwords or private keys."""
    import yaml

    from vantage.client import network

    with call.client() as client:
        found = network.export(client)
    if call.output.is_json:
        call.output.document(found)
    else:
        click.echo(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), nl=False)
