"""Questions to the person at the terminal."""

from __future__ import annotations

import sys

import click


def is_interactive() -> bool:
    """Whether a person can answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def secret(prompt: str, *, from_stdin: bool, option: str, confirm: bool = False) -> str:
    """A password: the first line of stdin, or typed without echo.

    Args:
        prompt: what is asked for.
        from_stdin: take it from stdin.
        option: option that takes it from stdin, for the message when nobody can answer.
        confirm: ask twice.

    Raises:
        UsageError: nobody can answer, or stdin is empty.
    """
    if from_stdin:
        line = sys.stdin.readline().rstrip("\r\n")
        if not line:
            raise click.UsageError(f"{option} was given and stdin is empty")
        return line
    if not is_interactive():
        raise click.UsageError(f"there is no terminal to ask for the {prompt.lower()}: give it to stdin with {option}")
    typed: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return typed


def confirm(question: str, *, yes: bool) -> None:
    """Go on only when the person agrees, or has agreed with ``--yes``.

    Raises:
        UsageError: nobody can answer.
        Abort: no.
    """
    if yes:
        return
    if not is_interactive():
        raise click.UsageError("there is no terminal to ask for a confirmation: add --yes")
    click.confirm(question, abort=True, err=True)
