"""The command tree: every command has help with an example, the page of the docs says the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from vantage.__main__ import COMMANDS, vantage
from vantage.client.cli.completion import SHELLS
from vantage.testing.commands import call

ROOT = Path(__file__).resolve().parents[2]


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            yield from walk(found, click.Context(found, info_name=name, parent=context))


EVERY = list(walk(vantage, click.Context(vantage, info_name="vantage")))
LEAVES = [(path, command, context) for path, command, context in EVERY if not isinstance(command, click.Group)]


@pytest.mark.parametrize(("path", "command", "context"), LEAVES, ids=[path for path, _command, _context in LEAVES])
def test_every_command_has_help_and_an_example(path: str, command: click.Command, context: click.Context) -> None:
    text = command.get_help(context)
    assert command.help, path
    assert "Example" in text, path
    assert f"  {path}" in text.partition("Example")[2], path


def test_the_table_of_the_entry_point_says_what_the_commands_say() -> None:
    assert {name: COMMANDS[name].help for name in COMMANDS} == {
        path.removeprefix("vantage "): (command.help or "").partition("\n")[0].strip()
        for path, command, _context in EVERY
        if path.count(" ") == 1
    }


def test_the_page_of_the_docs_is_what_the_commands_say() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "cli_docs", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("arguments", [[], ["task"], ["node"], ["organization", "create"]])
def test_help_loads_neither_grpc_nor_what_else_is_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from vantage.__main__ import vantage\n"
        "try: vantage.main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print(sorted({'grpc', 'pyarrow', 'rich', 'cryptography', 'httpx', 'pydantic', 'yaml'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: ")
    assert done.stdout.splitlines()[-1] == "[]"


def test_organization_has_a_short_form() -> None:
    assert call("org", "--help")[0].startswith("Usage: vantage org ")


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_a_script(shell: str) -> None:
    assert "_VANTAGE_COMPLETE" in call("completion", shell)[0]


def test_completion_answers_the_shell() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vantage"],
        env={"COMP_WORDS": "vantage organization se", "COMP_CWORD": "2", "_VANTAGE_COMPLETE": "bash_complete"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "set-ca" in done.stdout or "set-ca" in done.stderr, done


def test_version() -> None:
    assert call("version")[0].startswith("vantage ")
    assert set(json.loads(call("version", "--output", "json")[0])) == {"vantage", "python", "grpc"}
