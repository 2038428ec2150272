"""Options of commands that talk to a registry, and the credentials that 'docker login' stored."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vantage.client.cli import terminal

if TYPE_CHECKING:
    from vantage.common.oci import RegistryAccess

Function = Callable[..., None]


def login_options(function: Function) -> Function:
    """How a registry is reached; the function hands them on to ``access``."""
    for option in reversed(
        (
            click.option("--registry-user", metavar="NAME", help="User of the registry; else that of 'docker login'."),
            click.option("--registry-password-stdin", is_flag=True, help="Read that user's password from stdin."),
            click.option("--registry-insecure", is_flag=True, help="Plain HTTP; on loopback it needs no saying."),
            click.option(
                "--registry-ca",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Authority of the registry's certificate, PEM.",
            ),
        )
    ):
        function = option(function)
    return function


def registry_options(function: Function) -> Function:
    """How the registry is reached that an image names, or what stands in for it; likewise for ``access``."""
    for option in reversed(
        (
            click.option(
                "--registry-mirror",
                metavar="HOST[:PORT][/PREFIX]",
                help="Ask this registry in place of the one in the name; the other options are then about it.",
            ),
            click.option(
                "--archive",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Look into this file of 'vantage image export' in place of a registry.",
            ),
        )
    ):
        function = option(function)
    return login_options(function)


def require_registry(options: Mapping[str, object]) -> None:
    """Refuse to write into a file of images, which is only read.

    Raises:
        UsageError: it was given.
    """
    if options["archive"] is not None:
        raise click.UsageError("--archive is only read: sign in a registry, and export the image again")


def access(
    registry: str,
    *,
    registry_user: str | None,
    registry_password_stdin: bool,
    registry_insecure: bool,
    registry_ca: Path | None,
    registry_mirror: str | None = None,
    archive: Path | None = None,
) -> RegistryAccess:
    """How to reach a registry, from the options or from Docker's configuration."""
    from vantage.common.oci import RegistryAccess

    user, password = registry_user, None
    if user is not None:
        password = terminal.secret(
            "Password of the registry", from_stdin=registry_password_stdin, option="--registry-password-stdin"
        )
    elif (stored := _docker_login((registry_mirror or registry).partition("/")[0])) is not None:
        user, password = stored
    return RegistryAccess(user, password, registry_insecure, registry_ca, mirror=registry_mirror, archive=archive)


def accesses(registries: Iterable[str], **options: Any) -> dict[str, RegistryAccess]:
    """How to reach several registries. A password that is given goes to one of them, never to another.

    Raises:
        UsageError: it is not said to which.
    """
    different = list(dict.fromkeys(registries))
    if options["registry_mirror"] is not None:
        return dict.fromkeys(different, access(different[0], **options))
    if options["registry_user"] is not None and len(different) > 1:
        raise click.UsageError(
            f"--registry-user is that of one registry, the images are in {' and '.join(different)}: use 'docker login'"
        )
    return {each: access(each, **options) for each in different}


def _docker_login(registry: str) -> tuple[str, str] | None:
    """What 'docker login' wrote down; credentials in a helper of the desktop are left alone."""
    directory = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        document = json.loads((directory / "config.json").read_text("utf-8"))
        user, _, password = base64.b64decode(document["auths"][registry]["auth"]).decode().partition(":")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (user, password) if user else None
