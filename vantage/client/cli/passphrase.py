"""The passphrase of the keys, asked of the person at the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vantage.client.cli import terminal

if TYPE_CHECKING:
    from vantage.client import KeyFiles


def asking(files: KeyFiles) -> bytes | None:
    """The passphrase of the keys: stored, or asked of the person at the terminal."""
    from vantage.client.keys import PASSPHRASE_VARIABLE, stored_passphrase

    if (stored := stored_passphrase(files.name())) is not None:
        return stored
    if not terminal.is_interactive():
        raise click.UsageError(
            f"your keys have a passphrase: there is no terminal to ask, so set {PASSPHRASE_VARIABLE}"
        )
    return terminal.secret("Passphrase of your keys", from_stdin=False, option=PASSPHRASE_VARIABLE).encode()
