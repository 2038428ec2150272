"""``vantage server``."""

from __future__ import annotations

from pathlib import Path

import click

_DATA = click.option(
    "--data", required=True, type=click.Path(path_type=Path, file_okay=False), help="The server's data directory."
)


@click.group()
def server() -> None:
    """Run a server."""


@server.command(
    epilog="\b\nExample:\n  vantage server init --data /srv/vantage --listen 0.0.0.0:7600 --host example.org"
)
@_DATA
@click.option("--listen", default="127.0.0.1:7600", show_default=True, help="HOST:PORT to listen on.")
@click.option("--host", "hosts", multiple=True, help="Further host name or address for the certificate; repeatable.")
@click.option(
    "--trial", is_flag=True, help="One person plays everybody: root users agree for organizations. Never for real data."
)
def init(data: Path, listen: str, hosts: tuple[str, ...], trial: bool) -> None:
    """Make a new server and print its one-time bootstrap token."""
    from vantage.common.errors import VantageError
    from vantage.server.app import initialize
    from vantage.server.certificate import fingerprint
    from vantage.server.config import ServerConfig

    try:
        token = initialize(data, ServerConfig(listen=listen, hosts=hosts, trial=trial))
    except (VantageError, OSError) as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"fingerprint: {fingerprint(data)}")
    click.echo(f"bootstrap-token: {token}")
    click.echo("The token creates the first user, once; it is not shown again.", err=True)


@server.command(epilog="\b\nExample:\n  vantage server start --data /srv/vantage")
@_DATA
@click.option("--listen", help="HOST:PORT instead of the configured one; port 0 lets the system choose.")
@click.option("--insecure", is_flag=True, help="Without TLS; on loopback only.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Where to write the address once it listens.")
def start(data: Path, listen: str | None, insecure: bool, ready_file: Path | None) -> None:
    """Run until SIGTERM or SIGINT."""
    import asyncio
    import logging
    import signal

    import uvloop

    from vantage.common.errors import VantageError
    from vantage.server.app import build_server
    from vantage.server.certificate import fingerprint

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    async def run() -> None:
        running = build_server(data, listen=listen, tls=not insecure)
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await running.start()
        try:
            if running.config.trial:
                click.echo("trial server: root users agree for organizations; never use it for real data", err=True)
            if not insecure:
                click.echo(f"fingerprint: {fingerprint(data)}")
            if running.mtls_address:
                click.echo(f"mtls: {running.mtls_address}")
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


@server.command("fingerprint", epilog="\b\nExample:\n  vantage server fingerprint --data /srv/vantage")
@_DATA
def show_fingerprint(data: Path) -> None:
    """Print the fingerprint of the server's certificate."""
    from vantage.server.certificate import fingerprint

    try:
        click.echo(fingerprint(data))
    except OSError:
        raise click.ClickException(f"{data} holds no server: run 'vantage server init' first") from None


@server.command("relay-keys", epilog="\b\nExample:\n  vantage server relay-keys --data /srv/vantage > relay-keys.json")
@_DATA
def show_relay_keys(data: Path) -> None:
    """Print the public keys with which stand-alone relays check tickets (JSON Web Key Set)."""
    from vantage.common.clock import SystemClock
    from vantage.common.errors import VantageError
    from vantage.server.config import load_config
    from vantage.server.relaying import ticket_issuer

    try:
        load_config(data)  # elsewhere keys would be made that no server has
        click.echo(ticket_issuer(data, SystemClock()).key_set(), nl=False)
    except (VantageError, OSError) as problem:
        raise click.ClickException(str(problem)) from None


@server.command(
    "registry-certificate",
    epilog="\b\nExample:\n  vantage server registry-certificate --data /srv/vantage > vantage-tokens.crt",
)
@_DATA
def show_registry_certificate(data: Path) -> None:
    """Print the certificate by which a registry knows the tokens of this server ('rootcertbundle')."""
    from vantage.common import pki
    from vantage.common.clock import SystemClock
    from vantage.common.errors import VantageError
    from vantage.server.config import load_config
    from vantage.server.registry_certificate import pull_tokens

    try:
        load_config(data)  # elsewhere a key would be made that no server has
        click.echo(pki.to_pem(pull_tokens(data, SystemClock()).certificate), nl=False)
    except (VantageError, OSError) as problem:
        raise click.ClickException(str(problem)) from None


@server.command(epilog="\b\nExample:\n  vantage server rescue root --data /srv/vantage")
@click.argument("user")
@_DATA
def rescue(user: str, data: Path) -> None:
    """Let a person in again who has lost password, phone and recovery codes.

    It prints a token that sets a new password, once and within three days, and takes their one-time codes, sessions and
    lock away. Whoever can read the server's files can do this: it is in the audit.
    """
    from vantage.common.clock import SystemClock
    from vantage.common.errors import VantageError
    from vantage.server.rescue import rescue as let_in

    try:
        token, expires = let_in(data, user, SystemClock())
    except VantageError as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"reset-token: {token}")
    click.echo(
        f"It counts until {expires:%Y-%m-%d %H:%M} UTC: the person gives it to 'vantage password reset'", err=True
    )
