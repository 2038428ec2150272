"""What people type for a task, turned into values."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vantage.common import strict_json
from vantage.common.unique_keys import RepeatedKeyError

if TYPE_CHECKING:
    from vantage.client import Target

Arguments = Mapping[str, Any] | Path

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=3650)
_LARGE = 1024 * 1024
"""Files beyond this are not read here: the client sends them piece by piece."""


class DurationType(click.ParamType[timedelta]):
    """``90s``, ``30m``, ``12h``, ``7d``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """See click."""
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])", str(value).strip())
        duration = timedelta(**{_UNITS[match[2]]: float(match[1])}) if match is not None else _LONGEST
        if match is None or duration >= _LONGEST:
            self.fail(f"{value!r} is not a duration like 90s, 30m, 12h or 7d", param, ctx)
        return duration


def parse_arguments(text: str, option: str = "--arguments") -> Arguments:
    """A JSON object, ``@FILE`` that holds one, or ``@-`` for stdin.

    Raises:
        UsageError: it is none.
    """
    if not text.startswith("@"):
        return _object(text, option)
    if text == "@-":
        return _object(sys.stdin.read(), f"{option}: stdin")
    path = Path(text[1:])
    try:
        if path.stat().st_size > _LARGE:
            return path
        return _object(path.read_text("utf-8"), f"{option}: {path}")
    except OSError as problem:
        raise click.UsageError(f"{option}: cannot read {path}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{option}: {path} is not text in UTF-8") from None


def _object(text: str, source: str) -> Mapping[str, Any]:
    try:
        value = strict_json.loads(text)
    except (RepeatedKeyError, strict_json.NotANumberError) as problem:
        raise click.UsageError(f"{source} has {problem}") from None
    except ValueError as problem:
        hint = "" if text.lstrip().startswith("{") else "; for a file write @FILE"
        raise click.UsageError(f"{source} is not JSON ({problem}){hint}") from None
    except RecursionError:
        raise click.UsageError(f"{source} is nested too deeply") from None
    if not isinstance(value, dict):
        raise click.UsageError(f'{source} must be a JSON object, parameter -> value, e.g. {{"columns": ["age"]}}')
    return value


def parse_targets(
    organizations: Sequence[str], datasets: Sequence[str], overrides: Sequence[str], files: Sequence[str] = ()
) -> tuple[list[Target], dict[str, str], dict[str, Path]]:
    """Who is asked, and the datasets and files of all.

    Args:
        organizations: ``ORG`` or ``ORG/NODE``.
        datasets: ``PARAM=DATASET`` for all, ``ORG:PARAM=DATASET`` for one.
        overrides: ``ORG=ARGUMENTS``.
        files: ``PARAM=PATH`` for all, ``ORG:PARAM=PATH`` for one.

    Raises:
        UsageError: malformed, or about an organization that is not asked.
    """
    from vantage.client import Target

    nodes: dict[str, str] = {}
    for text in organizations:
        organization, _, node = text.removeprefix("organizations/").replace("/nodes/", "/").partition("/")
        if organization in nodes:
            raise click.UsageError(f"--organization {organization} is there twice: each is asked once")
        nodes[organization] = node
    common, own = _assignments(datasets, nodes, "--dataset", "DATASET")
    common_files, own_files = _assignments(files, nodes, "--file", "PATH")
    arguments: dict[str, Arguments] = {}
    for text in overrides:
        organization, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--arguments-for must have the form ORGANIZATION=JSON, got {text!r}")
        _asked(organization, nodes, "--arguments-for")
        arguments[organization] = parse_arguments(value, f"--arguments-for {organization}")
    return (
        [
            Target(
                organization=organization,
                node=node,
                arguments=arguments.get(organization),
                # What is said for one organization comes on top of what is said for all.
                datasets={**common, **own[organization]} if organization in own else None,
                files=_paths({**common_files, **own_files[organization]}) if organization in own_files else None,
            )
            for organization, node in nodes.items()
        ],
        common,
        _paths(common_files),
    )


def _paths(texts: Mapping[str, str]) -> dict[str, Path]:
    return {parameter: Path(text) for parameter, text in texts.items()}


def _assignments(
    texts: Sequence[str], nodes: Mapping[str, str], option: str, what: str
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    common: dict[str, str] = {}
    own: dict[str, dict[str, str]] = {}
    for text in texts:
        parameter, equals, value = text.partition("=")
        organization, colon, rest = parameter.partition(":")
        if not equals or not value or not (rest if colon else parameter):
            raise click.UsageError(
                f"{option} must have the form PARAM={what} or ORGANIZATION:PARAM={what}, got {text!r}"
            )
        if colon:
            _asked(organization, nodes, option)
            own.setdefault(organization, {})[rest] = value
        else:
            common[parameter] = value
    return common, own


def _asked(organization: str, nodes: Mapping[str, str], option: str) -> None:
    if organization not in nodes:
        raise click.UsageError(f"{option} speaks of {organization!r}, which is not asked: add --organization")
