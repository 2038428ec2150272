"""``vantage version``."""

from __future__ import annotations

import click

from vantage.client.cli.command import Call, command


@command(None, "version", "vantage version", local=True)
def version(call: Call) -> None:
    """Print the version."""
    import platform
    from importlib import metadata

    found = metadata.version("vantage")
    if call.output.is_json:
        call.output.document(
            {"vantage": found, "python": platform.python_version(), "grpc": metadata.version("grpcio")}
        )
    else:
        click.echo(f"vantage {found}")
