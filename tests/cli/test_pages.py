"""Commands that the pages for people name exist, with the options that they are given there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from scripts.lib import links
from vantage.__main__ import vantage
from vantage.common.errors import Reason

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = {ROOT / "docs" / name for name in ("cli.md", "errors.md", "access.md")}
"""By scripts, from what there is."""
NO_REASONS = re.compile(
    "ACCESS_TOKEN|DROP_AFTER|HTTPS?_PROXY|IN_PROCESS|NODE_BUSY|NODE_OFFLINE|NO_NODE|WIRE_JSON|"
    "(AWS|CANCEL|COSIGN|DOCKER|RUN_STATE|SEALING|TASK_STATE|VANTAGE)_"
)
"""What else is written like a reason: variables, values of enums, settings."""
PAGES = [page for page in links.pages(ROOT) if page not in WRITTEN]


def typed(text: str) -> Iterator[str]:
    """What is called, in blocks and within sentences."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.match(r"(?:\$ |ExecStart=\S*/)?(vantage .*)", line.strip()):
                yield found[1].partition(" #")[0].partition(" > ")[0]
    for mention in re.findall(r"(?<!`)`(vantage [^`]+)`", text):
        yield " ".join(mention.split())


def wrong(line: str) -> Iterator[str]:
    """What of a command does not exist. ``add|remove`` names several."""
    words = shlex.split(line)[1:]
    command: click.Command = vantage
    context = click.Context(vantage, info_name="vantage")
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        found = {name: command.get_command(context, name) for name in words[0].split("|")}
        if missing := [name for name, each in found.items() if each is None]:
            yield f"{context.command_path} {missing[0]}"
            return
        command = next(each for each in found.values() if each is not None)
        context = click.Context(command, info_name=words.pop(0), parent=context)
    known = {"--help", *(name for each in command.get_params(context) for name in each.opts + each.secondary_opts)}
    for word in words:
        if word.startswith("--") and word.partition("=")[0] not in known:
            yield f"{context.command_path} {word}"


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    assert [f"{line}: there is no {each}" for line in typed(text) for each in wrong(line)] == []
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text))
    assert {each for each in named if not NO_REASONS.match(each)} <= set(Reason.__members__)


def test_commands_are_found_and_what_does_not_exist_is_told() -> None:
    lines = [line for page in PAGES for line in typed(page.read_text("utf-8"))]
    assert len(lines) > 100
    for line, missing in (
        ("vantage node strat --config x", ["vantage node strat"]),
        ("vantage node trust add|drop hilda", ["vantage node trust drop"]),
        ("vantage task run --imagge x", ["vantage task run --imagge"]),
        ("vantage task run --image x", []),
    ):
        assert list(wrong(line)) == missing
