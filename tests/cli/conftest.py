"""Runs commands in this process, by the same way as the program; ``vantage.testing.commands`` runs real processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vantage.__main__ import vantage

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of its own for each test, and nothing of the developer's environment."""
    for name in list(os.environ):
        if name.startswith("VANTAGE_") or name == "COSIGN_PASSWORD":
            monkeypatch.delenv(name)
    directory = tmp_path / "configuration"
    monkeypatch.setenv("VANTAGE_CONFIG_DIR", str(directory))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return directory


@pytest.fixture
def run() -> Run:
    """Runs a command and returns exit code, stdout and stderr."""

    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        return CliRunner().invoke(vantage, [str(each) for each in arguments], input=stdin, prog_name="vantage")

    return invoke
