"""``vantage organization``."""

from __future__ import annotations

import click

from vantage.client.cli.certificates import init_organization


@click.group()
def organization() -> None:
    """Organizations and their certificate authorities."""


organization.add_command(init_organization, "init")
