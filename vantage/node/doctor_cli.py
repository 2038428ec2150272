"""``vantage node doctor``: is the configuration right, and does the sandbox hold?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vantage.node.config import NodeConfig
    from vantage.node.doctor.proof import Proof

_EXIT_FAILURE, _EXIT_USAGE = 1, 2


@click.command(
    epilog="\b\nExamples:\n"
    "  vantage node doctor --config /srv/node/node.yaml\n"
    "  vantage node doctor --image registry.example.org/algorithms/summary:1 --output json"
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("node.yaml"),
    show_default=True,
    help="The node's configuration.",
)
@click.option("--image", help="An image of the engine with python3 to try it in; default: docker.probe_image.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def doctor(config_path: Path, image: str | None, output: str) -> None:
    """Check the configuration, and prove the sandbox from inside.

    Starts a container just as an algorithm is started, without any data, that tries to break out, and says of each
    protection whether it held, what was tried and what was seen. Needs no network. A node may run meanwhile.

    Exit code 0: all held. 1: something did not, or could not be tried. 2: the configuration is wrong.
    """
    import asyncio

    from vantage.common.clock import SystemClock
    from vantage.common.errors import ConfigurationError, VantageError
    from vantage.node import config
    from vantage.node.identity import Identity

    try:
        loaded = config.load(config_path)
        Identity.load(loaded.identity, SystemClock())
        if loaded.executor != "docker":
            click.echo("Error: executor: process has no sandbox: nothing holds; use executor: docker", err=True)
            sys.exit(_EXIT_FAILURE)
        from vantage.node.doctor.proof import prove

        loaded.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        proof = asyncio.run(prove(loaded, image or loaded.docker.probe_image, SystemClock()))
    except VantageError as problem:
        click.echo(f"Error: {problem.message}", err=True)
        sys.exit(_EXIT_USAGE if isinstance(problem, ConfigurationError) else _EXIT_FAILURE)
    (_as_json if output == "json" else _as_text)(loaded, proof)
    sys.exit(_EXIT_FAILURE if proof.missed else 0)


def _as_json(config: NodeConfig, proof: Proof) -> None:
    import json

    from vantage.node.doctor.findings import document_of

    document = {
        "node": config.identity.name,
        "time": proof.time.isoformat(),
        "held": not proof.missed,
        "findings": document_of(proof.findings),
    }
    click.echo(json.dumps(document, indent=2))


def _as_text(config: NodeConfig, proof: Proof) -> None:
    from vantage.node.doctor.findings import PROTECTIONS

    click.echo(f"{config.identity.name}: the configuration is right; the sandbox, tried from inside:")
    for each in proof.findings:
        click.echo(f"{'held' if each.held else 'NOT HELD':<9} {each.check:<25} {PROTECTIONS[each.check]}")
        if not each.held:
            click.echo(f"{'':<10}tried: {each.tried}")
            click.echo(f"{'':<10}seen:  {each.seen}")
    if proof.missed:
        click.echo(f"{len(proof.missed)} of {len(proof.findings)} protections did not hold")
    else:
        click.echo(f"all {len(proof.findings)} protections held")
