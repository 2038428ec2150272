"""``vantage completion``."""

from __future__ import annotations

import click

from vantage.client.cli.command import examples

SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog=examples(
        "vantage completion bash > ~/.local/share/bash-completion/completions/vantage",
        "vantage completion zsh > ~/.zfunc/_vantage",
        "vantage completion fish > ~/.config/fish/completions/vantage.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands in your shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"this version of click has no completion for {shell}: update click")
    click.echo(found(context.find_root().command, {}, "vantage", "_VANTAGE_COMPLETE").source())
