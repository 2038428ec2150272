"""What ``docs/certificates.md`` tells the admin to type works, in that order, against a real server."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from vantage.common import pki
from vantage.testing import commands
from vantage.testing.commands import call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "certificates.md"
PASSWORD = "seven wet horses sing"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    data = tmp_path / "server"
    said = dict(line.split(": ", 1) for line in call("server", "init", "--data", data)[0].splitlines())
    with commands.running("server", "start", "--data", data, "--listen", "127.0.0.1:0", ready="ready: ") as ready:
        options = ("--server", ready.split()[1], "--fingerprint", said["fingerprint"])
        call("bootstrap", *options, "--token", said["bootstrap-token"], "--password-stdin", stdin=f"{PASSWORD}\n")
        yield ready.split()[1]


def typed() -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_page_works_as_it_stands(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("phrase").write_text("a long phrase\n")
    call("org", "init", "hilda", "--ca", "hilda-ca")
    lines = typed()
    assert len(lines) > 20
    old = ""
    for line in lines:
        program, *arguments = shlex.split(line.replace("vantage.example.org:7600", address).replace("sha256:OLD", old))
        assert program == "vantage"
        if arguments[:2] == ["organization", "renew"]:
            old = pki.fingerprint(pki.load_certificates(Path("clara-ca/ca-cert.pem").read_bytes())[0])
        call(*arguments)
    assert re.fullmatch("sha256:[0-9a-f]{64}", old)
