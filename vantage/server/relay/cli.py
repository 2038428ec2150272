"""``vantage relay``."""

from __future__ import annotations

from pathlib import Path

import click

_DATA = click.option(
    "--data", required=True, type=click.Path(path_type=Path, file_okay=False), help="The relay's directory."
)


@click.group()
def relay() -> None:
    """Run a relay of its own.

    It forwards sealed bytes between nodes. Every server has one inside already.
    """


@relay.command(epilog="\b\nExample:\n  vantage relay init --data /srv/relay --name relay-1 --keys relay-keys.json")
@_DATA
@click.option("--name", required=True, help="Name of the relay; the server's configuration uses the same.")
@click.option(
    "--keys",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What 'vantage server relay-keys' wrote.",
)
@click.option("--listen", default="127.0.0.1:7700", show_default=True, help="HOST:PORT to listen on.")
@click.option("--host", "hosts", multiple=True, help="Further host name or address for the certificate; repeatable.")
def init(data: Path, name: str, keys: Path, listen: str, hosts: tuple[str, ...]) -> None:
    """Make the directory of a new relay."""
    from pydantic import ValidationError

    from vantage.common.errors import VantageError
    from vantage.server.certificate import CERTIFICATE_FILE
    from vantage.server.relay.program import RelayConfig, initialize

    try:
        initialize(data, RelayConfig(name=name, listen=listen), keys.read_text("utf-8", "replace"), hosts)
    except ValidationError:
        raise click.ClickException(f"{name!r} must be 2 to 40 lower-case letters, digits and hyphens") from None
    except (VantageError, OSError) as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"certificate: {data / CERTIFICATE_FILE}")
    click.echo("Add the relay, with this certificate, to 'relays' in the server's server.yaml.", err=True)


@relay.command(epilog="\b\nExample:\n  vantage relay start --data /srv/relay")
@_DATA
@click.option("--listen", help="HOST:PORT instead of the configured one; port 0 lets the system choose.")
@click.option("--insecure", is_flag=True, help="Without TLS; what nodes send is sealed from node to node anyway.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Where to write the address once it listens.")
def start(data: Path, listen: str | None, insecure: bool, ready_file: Path | None) -> None:
    """Run until SIGTERM or SIGINT; pairs that are open then have time to end."""
    import asyncio
    import logging
    import signal

    import uvloop

    from vantage.common.errors import VantageError
    from vantage.server.relay.program import Relay

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    async def run() -> None:
        running = Relay(data, listen=listen, tls=not insecure)
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await running.start()
        try:
            if running.metrics is not None:
                click.echo(f"metrics: http://{running.metrics.address}/metrics")
            click.echo(f"ready: {running.address}")
            if ready_file is not None:
                partial = ready_file.with_name(ready_file.name + ".partial")
                partial.write_text(running.address + "\n", "utf-8")
                partial.replace(ready_file)  # whoever waits for the file must not see half of it
            await stopping.wait()
        finally:
            await running.stop()

    try:
        uvloop.run(run())
    except (VantageError, OSError) as problem:
        raise click.ClickException(str(problem)) from None
