"""Servers that say nothing, and people who lose patience."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from vantage.testing import commands

IMAGE = f"127.0.0.1:9/algorithms/count@sha256:{'a' * 64}"


@pytest.fixture
def silent(run: Run, configuration: Path) -> Iterator[socket.socket]:
    """A server that takes connections and never answers, with a profile whose session looks good."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert run("profile", "add", "silent", "--server", f"127.0.0.1:{port}", "--insecure").exit_code == 0
        (configuration / "tokens").mkdir()
        (configuration / "tokens" / "silent.json").write_text(
            json.dumps(
                {
                    "user": "users/rosa",
                    "access_token": "a",
                    "access_expires": "2999-01-01T00:00:00+00:00",
                    "refresh_token": "r",
                    "refresh_expires": "2999-01-01T00:00:00+00:00",
                }
            )
        )
        yield listening


def test_before_the_answer_the_request_id_is_what_helps(silent: socket.socket) -> None:
    program = commands.start(
        "task", "run", "--image", IMAGE, "--function", "count", "--collaboration", "trial", "--organization", "clara"
    )
    connection, _address = silent.accept()
    with connection:
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (130, "")
    assert "the same command with --request-id " in err
    assert "Traceback" not in err


def test_any_command_may_be_interrupted(silent: socket.socket) -> None:
    program = commands.start("whoami", "--output", "json")
    connection, _address = silent.accept()
    with connection:
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (130, "")
    assert json.loads(err.splitlines()[-1])["error"]["reason"] == "INTERRUPTED"


def test_a_server_that_is_away_is_said_soon(run: Run, configuration: Path, silent: socket.socket) -> None:
    silent.close()
    done = run("whoami")
    assert (done.exit_code, done.stdout) == (4, "")
    assert "cannot be reached" in done.stderr
