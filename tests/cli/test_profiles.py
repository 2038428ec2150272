"""``vantage profile``: no server is asked."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run

FINGERPRINT = "sha256:" + "ab" * 32


def test_profiles_are_added_used_shown_and_removed(run: Run, configuration: Path, tmp_path: Path) -> None:
    assert "makes one" in run("profile", "list").stderr
    colons = ":".join(["AB"] * 32)
    added = run("profile", "add", "one", "--server", "one.example.org:7600", "--fingerprint", colons, "-o", "json")
    assert json.loads(added.stdout)["fingerprint"] == FINGERPRINT
    certificate = tmp_path / "ca.pem"
    certificate.write_text("x")
    assert run("profile", "add", "two", "--server", "two:1", "--ca", certificate, "--username", "rosa").exit_code == 0
    listed = json.loads(run("profile", "list", "--output", "json").stdout)
    assert [(each["name"], each["current"], each["ca"]) for each in listed] == [
        ("one", True, None),
        ("two", False, str(certificate)),
    ]
    assert run("profile", "use", "two").exit_code == 0
    assert json.loads(run("profile", "show", "-o", "json").stdout)["name"] == "two"
    assert f"authority {certificate}" in run("profile", "show").stdout
    (configuration / "tokens").mkdir()
    (configuration / "tokens" / "two.json").write_text("{}")
    assert run("profile", "remove", "two").exit_code == 0
    assert not (configuration / "tokens" / "two.json").exists()
    gone = run("profile", "show")
    assert (gone.exit_code, "profile add" in gone.stderr) == (2, True)


def test_what_is_wrong_is_said(run: Run) -> None:
    assert run("profile", "add", "one", "--server", "one:1").exit_code == 0
    for arguments, code, why in (
        (("add", "one", "--server", "one:1"), 1, "remove it first"),
        (("add", "../x", "--server", "one:1"), 2, "a profile's name has"),
        (("add", "two", "--server", "two"), 2, "HOST:PORT"),
        (("add", "two", "--server", "two:1", "--insecure"), 2, "loopback only"),
        (("add", "two", "--server", "two:1", "--fingerprint", "ab"), 2, "64 hexadecimal digits"),
        (("add", "two", "--server", "localhost:1", "--insecure", "--fingerprint", FINGERPRINT), 2, "give one of"),
        (("use", "two"), 2, "there is no profile 'two'; there are: one"),
        (("remove", "two"), 2, "there is no profile 'two'"),
    ):
        done = run("profile", *arguments)
        assert (done.exit_code, done.stdout) == (code, ""), done.stderr
        assert why in done.stderr
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1


def test_a_profile_that_is_not_there_or_not_logged_in(run: Run) -> None:
    run("profile", "add", "one", "--server", "127.0.0.1:9", "--insecure")
    done = run("whoami", "--profile", "two")
    assert (done.exit_code, "no profile 'two'" in done.stderr) == (2, True)
    away = run("whoami")
    assert (away.exit_code, "vantage login" in away.stderr) == (3, True)
