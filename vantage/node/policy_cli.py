"""``vantage node policy``: what the node's rules for images say, and why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vantage.common.text import one_line

if TYPE_CHECKING:
    from vantage.common.errors import VantageError
    from vantage.node.config import NodeConfig
    from vantage.node.images.explanation import Explanation, Step, Supposed

_EXIT_FAILURE, _EXIT_USAGE = 1, 2
_MAX_ARGUMENTS = 64 * 1024 * 1024

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("node.yaml"),
    show_default=True,
    help="The node's configuration.",
)
_OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)


@click.group()
def policy() -> None:
    """See what the node's rules for images allow, and why. Works on its files, beside a node that runs."""


@policy.command(
    epilog="\b\nExamples:\n"
    "  vantage node policy explain registry.example.org/summary@sha256:HEX --function summary --user dora/alice\n"
    "  vantage node policy explain IMAGE --function summary --user alice --arguments arguments.json --offline"
)
@click.argument("image")
@click.option("--function", required=True, help="The function that would be called.")
@click.option("--user", default="", help="Who would ask, e.g. dora/alice.")
@click.option("--organization", help="Whose user that is, where --user does not say so.")
@click.option("--collaboration", help="In which collaboration; left out: in any that the node serves.")
@click.option(
    "--arguments",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the arguments, as JSON.",
)
@click.option("--offline", is_flag=True, help="Ask no registry: say what this node knows.")
@_CONFIG
@_OUTPUT
def explain(
    image: str,
    function: str,
    user: str,
    organization: str | None,
    collaboration: str | None,
    arguments: Path | None,
    offline: bool,
    config_path: Path,
    output: str,
) -> None:
    """Say whether IMAGE would run for somebody, with each check and what it found.

    Nothing runs, and nothing is remembered. Exit code 0: it would be allowed. 1: it would be refused, or that cannot be
    told. 2: the configuration is wrong.
    """
    import asyncio

    from vantage.common.errors import VantageError
    from vantage.node.images.explanation import Supposed

    content = None
    if arguments is not None:
        if arguments.stat().st_size > _MAX_ARGUMENTS:
            raise click.UsageError(f"--arguments: more than {_MAX_ARGUMENTS} bytes")
        content = arguments.read_bytes()
    try:
        loaded = _load(config_path)
        if loaded.executor == "process":
            click.echo(
                "Error: executor: process runs modules in place of images: no rule for images is asked", err=True
            )
            sys.exit(_EXIT_FAILURE)
        supposed = Supposed(_asked(image, function, user, organization), _in(collaboration), content)
        found = asyncio.run(_explained(loaded, supposed, offline=offline))
    except VantageError as problem:
        _fail(problem)
    if output == "json":
        click.echo(json.dumps(_document(image, function, found), indent=2))
    else:
        _print(found)
    sys.exit(0 if found.allowed else _EXIT_FAILURE)


@policy.command(epilog="\b\nExample:\n  vantage node policy keys --config /srv/node/node.yaml")
@_CONFIG
@_OUTPUT
def keys(config_path: Path, output: str) -> None:
    """List the keys that rules for images name, with fingerprints as policy.revoked.keys wants them."""
    from vantage.common.clock import SystemClock
    from vantage.common.errors import VantageError
    from vantage.node.images.rules import load_policy

    try:
        loaded = load_policy(_load(config_path).policy)
    except VantageError as problem:
        _fail(problem)
    now = SystemClock().now()
    rows: list[dict[str, Any]] = []
    for key in loaded.keys:
        state = (
            "revoked" if key.fingerprint in loaded.revoked.keys else "expired" if key.has_expired(now) else "trusted"
        )
        expires = key.expires.isoformat() if key.expires is not None else None
        rows.append(
            {"name": key.name, "role": key.role, "state": state, "expires": expires, "fingerprint": key.fingerprint}
        )
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        about = [row["role"] or "no role", row["state"], *([f"until {row['expires']}"] if row["expires"] else [])]
        click.echo(one_line(f"{row['name']} ({', '.join(about)}): {row['fingerprint']}"))
    if not rows:
        click.echo("no keys: add them under policy.keys, and name them in policy.images")


def _load(path: Path) -> NodeConfig:
    from vantage.node import config

    return config.load(path)


async def _explained(config: NodeConfig, supposed: Supposed, *, offline: bool) -> Explanation:
    from vantage.node.images.access import RegistryAccesses
    from vantage.node.images.engine import EngineImages
    from vantage.node.images.explanation import explain
    from vantage.node.images.source import build_verifier
    from vantage.node.images.tokens import ServerTokens

    async with ServerTokens.of(config) as tokens:
        verifier = build_verifier(config, RegistryAccesses(config, tokens))
        engine = EngineImages(config.docker.host)
        return await explain(config, verifier, engine.has, supposed, offline=offline)


def _asked(image: str, function: str, user: str, organization: str | None) -> Any:
    from vantage.common import names
    from vantage.node.sources import CodeRequest

    whose, slash, login = user.rpartition("/")
    if slash and organization is not None:
        raise click.UsageError("--user names the organization already: leave out --organization")
    whose = "" if whose == "users" else whose
    whose = (organization or whose).removeprefix("organizations/").removesuffix("/users")
    if whose and not names.is_valid(f"organizations/{whose}", "organizations"):
        raise click.UsageError(f"{whose!r} is not the name of an organization")
    if login and not names.is_valid(f"users/{login}", "users"):
        raise click.UsageError(f"{login!r} is not the name of a user")
    full = f"organizations/{whose}" if whose else ""
    return CodeRequest(image, function, full, (f"{full}/users/{login}" if full else f"users/{login}") if login else "")


def _in(collaboration: str | None) -> str | None:
    if collaboration is None or "/" in collaboration:
        return collaboration
    return f"collaborations/{collaboration}"


def _document(image: str, function: str, found: Explanation) -> dict[str, Any]:
    refusal = found.refusal
    return {
        "image": image,
        "function": function,
        "policy": found.policy,
        "allowed": found.allowed,
        "reason": refusal.reason.name if refusal is not None else None,
        "message": refusal.message if refusal is not None else None,
        "steps": [vars(each) for each in found.steps],
    }


def _print(found: Explanation) -> None:
    rule = ""
    for step in found.steps:
        if step.rule != rule and step.rule:
            click.echo(one_line(f"rule {step.rule}"))
        rule = step.rule
        click.echo(one_line(_line(step)))
    click.echo(f"policy: {found.policy}")
    if found.refusal is not None:
        click.echo(one_line(f"refused: {found.refusal}"))
    elif found.allowed is None:
        click.echo("not known: see the steps marked with ?")
    else:
        click.echo("allowed")


def _line(step: Step) -> str:
    mark = {True: "held  ", False: "FAILED", None: "?     "}[step.held]
    number = f"{step.number:>2}" if step.number else "  "
    return f"{'  ' if step.rule else ''}{mark} {number} {step.check}: {step.why}"


def _fail(problem: VantageError) -> NoReturn:
    from vantage.common.errors import ConfigurationError

    click.echo(f"Error: {problem.message}", err=True)
    sys.exit(_EXIT_USAGE if isinstance(problem, ConfigurationError) else _EXIT_FAILURE)
