"""One-time codes, a log-in at a provider and a reset token, by the command line alone: real processes throughout."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyotp
import pytest
import yaml

from vantage.testing import commands
from vantage.testing.commands import call, call_json

pytestmark = pytest.mark.nodejs

INTEROP = Path(__file__).resolve().parents[1] / "interop"
PASSWORD = "seven wet horses sing"
ROOT = ("--profile", "default")


@pytest.fixture
def issuer() -> Iterator[str]:
    """npm oidc-provider."""
    with subprocess.Popen(
        ["node", "identity_provider.mjs"],
        cwd=INTEROP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as running:
        try:
            assert running.stdout is not None
            yield running.stdout.readline().strip()
        finally:
            running.kill()


@pytest.fixture
def server(tmp_path: Path, issuer: str) -> Iterator[tuple[str, ...]]:
    """A server with that provider, where root has logged in; its options."""
    data = tmp_path / "server"
    said = dict(line.split(": ", 1) for line in call("server", "init", "--data", data)[0].splitlines())
    settings = yaml.safe_load((data / "server.yaml").read_text())
    settings["identity_provider"] = {
        "issuer": issuer,
        "client_id": "vantage",
        "require_nonce": False,
        "claim": "sub",
        "claim_users": {"root@clara.example": "root"},
    }
    (data / "server.yaml").write_text(yaml.safe_dump(settings))
    with commands.running("server", "start", "--data", data, "--listen", "127.0.0.1:0", ready="ready: ") as ready:
        options = ("--server", ready.split()[1], "--fingerprint", said["fingerprint"])
        token = ("--token", said["bootstrap-token"])
        call("bootstrap", *options, *token, "--password-stdin", stdin=f"{PASSWORD}\n")
        yield options


def test_codes_are_enrolled_used_and_disabled(server: tuple[str, ...]) -> None:
    program = commands.start("totp", "enrol", "--stdin", "--output", "json")
    try:
        assert program.stdin is not None
        assert program.stderr is not None
        program.stdin.write(f"{PASSWORD}\n")
        program.stdin.flush()
        secret = program.stderr.readline().removeprefix("secret: ").strip()
        out, err = program.communicate(f"{pyotp.TOTP(secret).now()}\n", commands.PATIENCE)
    finally:
        program.kill()
        program.communicate()
    assert program.returncode == 0, err
    codes = json.loads(out)["recovery_codes"]
    assert len(codes) == 10
    login = ("login", *server, "--username", "root", "--password-stdin")
    refused = json.loads(call(*login, "--output", "json", stdin=f"{PASSWORD}\n", code=3)[1])
    assert refused["error"]["reason"] == "ONE_TIME_CODE_REQUIRED"
    call(*login, "--one-time-code", codes[0], stdin=f"{PASSWORD}\n")
    renewed = call_json("totp", "recovery-codes", "--stdin", stdin=f"{PASSWORD}\n{codes[1]}\n")["recovery_codes"]
    assert not set(renewed) & set(codes)
    call("totp", "disable", "--stdin", stdin=f"{PASSWORD}\n{renewed[0]}\n")
    call(*login, stdin=f"{PASSWORD}\n")


async def test_a_log_in_by_another_device(server: tuple[str, ...]) -> None:
    from tests.rpc.identity.providers import browse

    call("logout")
    program = commands.start("login", *server, "--provider", "--device", "--output", "json")
    try:
        assert program.stderr is not None
        found = re.match(r"open (\S+)", program.stderr.readline())
        assert found is not None
        await browse(found[1], "root@clara.example")
        out, err = program.communicate("", commands.PATIENCE)
    finally:
        program.kill()
        program.communicate()
    assert program.returncode == 0, err
    assert json.loads(out)["user"] == "users/root"
    assert call_json("whoami")["name"] == "users/root"


def test_an_admin_helps_a_user_who_is_locked_out(server: tuple[str, ...]) -> None:
    new = "four unrelated wooden thoughts"
    call("user", "create", "olga", "--role", "viewer", "--password-stdin", stdin=f"{PASSWORD}\n")
    call("user", "link-identity", "olga", "olga@clara.example")
    call("user", "remove-codes", "olga", "--yes")
    token = call_json("user", "reset-password", "olga")["reset_token"]
    assert call_json("password", "reset", *server, "--stdin", stdin=f"{token}\n{new}\n")["user"] == "users/olga"
    call("login", *server, "--username", "olga", "--password-stdin", stdin=f"{new}\n")
    call("login", *server, "--username", "root", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert call_json("user", "revoke-sessions", "olga")["ended_sessions"] == 1


def test_a_user_is_invited_and_no_admin_knows_the_password(server: tuple[str, ...]) -> None:
    new = "four unrelated wooden thoughts"
    invited = call_json("user", "create", "olga", "--role", "viewer", "--invite")
    assert call_json("user", "credentials", "olga")["has_password"] is False
    call("password", "reset", *server, "--stdin", stdin=f"{invited['reset_token']}\n{new}\n")
    for _ in range(2):
        call("login", *server, "--username", "olga", "--password-stdin", "--profile", "olga", stdin=f"{new}\n")
    known = call_json("user", "credentials", "olga", *ROOT)
    assert (known["has_password"], known["one_time_codes"]) == (True, False)
    assert {each["method"] for each in known["sessions"]} == {"password"}

    ids = {each["id"]: each["current"] for each in call_json("session", "list", "--profile", "olga")}
    assert ids.keys() == {each["id"] for each in known["sessions"]}
    other = next(name for name, current in ids.items() if not current)
    call("session", "end", other, "--profile", "olga")
    assert {each["id"] for each in call_json("session", "list", "--profile", "olga")} == ids.keys() - {other}


async def test_identities_are_linked_and_unlinked(server: tuple[str, ...]) -> None:
    from tests.rpc.identity.providers import browse

    call("user", "create", "olga", "--role", "viewer", "--password-stdin", stdin=f"{PASSWORD}\n")
    call("login", *server, "--username", "olga", "--password-stdin", "--profile", "olga", stdin=f"{PASSWORD}\n")
    program = commands.start("identity", "link", "--device", "--password-stdin", "--profile", "olga", "-o", "json")
    try:
        assert program.stdin is not None
        assert program.stderr is not None
        program.stdin.write(f"{PASSWORD}\n")
        program.stdin.flush()
        found = re.match(r"open (\S+)", program.stderr.readline())
        assert found is not None
        await browse(found[1], "olga@clara.example")
        out, err = program.communicate("", commands.PATIENCE)
    finally:
        program.kill()
        program.communicate()
    assert program.returncode == 0, err
    assert json.loads(out) == {"subject": "olga@clara.example"}
    [linked] = call_json("identity", "list", "--profile", "olga")
    assert "olga@clara.example" in call("user", "credentials", "olga", *ROOT)[0]
    call("identity", "unlink", linked["issuer"], linked["subject"], "--profile", "olga")
    assert call_json("identity", "list", "--profile", "olga") == []
    call("user", "link-identity", "olga", "olga@clara.example", *ROOT)
    call("user", "unlink-identity", "olga", linked["issuer"], linked["subject"], *ROOT)
    assert call_json("user", "credentials", "olga", *ROOT)["identities"] == []


def test_a_wrong_reset_token_is_refused(server: tuple[str, ...]) -> None:
    said = call("password", "reset", *server, "--stdin", stdin="wrong\nfour unrelated wooden thoughts\n", code=3)[1]
    assert "RESET_TOKEN_INVALID" in said or "reset token is wrong" in said
