"""How commands are declared: options that all have, an example in each help, the call that each function gets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from vantage.client.cli.output import Output

if TYPE_CHECKING:
    from vantage.client import Client


@dataclass(frozen=True)
class Call:
    """What a command's function gets first.

    Attributes:
        output: where answers go.
        profile: name of the profile that was asked for; None for the current one.
    """

    output: Output
    profile: str | None = None

    @contextmanager
    def client(self, transfer: Callable[[str, int, int], None] | None = None) -> Iterator[Client]:
        """The client of the profile, logged in; ``transfer`` is told of large arguments and results."""
        from vantage.client import Client, profiles
        from vantage.client.cli.passphrase import asking
        from vantage.client.keyring import KeyFiles

        chosen, _profile = profiles.load().get(self.profile)
        files = KeyFiles(profiles.keys_path(chosen))
        with Client.from_profile(chosen, transfer=transfer, passphrase=lambda: asking(files)) as client:
            yield client


def examples(*lines: str) -> str:
    """Text for the end of a command's help."""
    title = "Example:" if len(lines) == 1 else "Examples:"
    return "\n".join(["\b", title, *(f"  {line}" for line in lines)])


def complete_profiles(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from vantage.client import profiles
    from vantage.common.errors import VantageError

    try:
        return [name for name in sorted(profiles.load().profiles) if name.startswith(incomplete)]
    except VantageError:
        return []


_PROFILE = click.option(
    "--profile",
    envvar="VANTAGE_PROFILE",
    metavar="NAME",
    shell_complete=complete_profiles,
    help="Which server; the current profile without it. [env: VANTAGE_PROFILE]",
)
_OUTPUT = click.option(
    "-o",
    "--output",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    envvar="VANTAGE_OUTPUT",
    help="For people or for programs. [env: VANTAGE_OUTPUT]",
)


def command(
    group: click.Group | None, name: str, *example: str, local: bool = False
) -> Callable[[Callable[..., None]], click.Command]:
    """Declare a command; its function gets a ``Call`` and then the parameters.

    Args:
        group: the noun that it belongs to; None for a command of its own.
        name: the verb.
        example: what one types, shown in the help.
        local: it talks to no server: there is no option ``--profile``.
    """

    def declare(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(*, output_format: str, profile: str | None = None, **parameters: Any) -> None:
            function(Call(Output(output_format), profile), **parameters)

        own = run.__dict__.pop("__click_params__", [])
        wrapped = _OUTPUT(run)
        if not local:
            wrapped = _PROFILE(wrapped)
        wrapped.__dict__["__click_params__"].extend(own)  # the help then shows those that all have at the end
        built = click.command(name, epilog=examples(*example))(wrapped)
        if group is not None:
            group.add_command(built)
        return built

    return declare
