"""Signed and sealed from the command line to real nodes and back; what is archived opens with the tool age."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from vantage.client import profiles
from vantage.client.keyring import SECRETS_FILE
from vantage.common import pki, sealing
from vantage.testing import commands
from vantage.testing.commands import call, call_json
from vantage.testing.terminal import Terminal

PASSWORD = "nine calm otters swim"
PASSPHRASE = "two dry foxes bark"
REPOSITORY = "registry.test/algorithms/inprocess"
IMAGE = f"{REPOSITORY}@sha256:{'a' * 64}"
ASK = ("task", "run", "--image", IMAGE, "--quiet", "--organization", "clara", "--organization", "hilda", "--function")
MARKER = 918273645546372


@pytest.fixture
def network(tmp_path: Path, configuration: Path) -> Iterator[Path]:
    """A server, nodes of clara and hilda that believe dora, and rosa of dora, logged in, without keys."""
    data = tmp_path / "server"
    said = dict(line.split(": ", 1) for line in call("server", "init", "--data", data, "--trial")[0].splitlines())
    with ExitStack() as stack:
        ready = stack.enter_context(
            commands.running("server", "start", "--data", data, "--listen", "127.0.0.1:0", ready="ready: ")
        )
        server = ("--server", ready.split()[1], "--fingerprint", said["fingerprint"])
        token = ("--token", said["bootstrap-token"], "--password-stdin")
        call("bootstrap", *server, "--profile", "root", *token, stdin=f"{PASSWORD}\n")
        for name in ("clara", "hilda", "dora"):
            call("org", "init", name, "--ca", tmp_path / name)
            call("organization", "create", name, "--ca-certificate", tmp_path / name / "ca-cert.pem")
        members = [each for name in ("clara", "hilda", "dora") for each in ("--organization", name)]
        call("collaboration", "create", "trial", *members)
        role = ("--role", "researcher", "--password-stdin")
        call("user", "create", "rosa", "--organization", "dora", *role, stdin=PASSWORD)
        for name in ("clara", "hilda"):
            call("node", "create", f"{name}-1", "--organization", name, "--collaboration", "trial")
            configured = _station(tmp_path / f"station-{name}", name, server, tmp_path)
            stack.enter_context(commands.running("node", "start", "--config", configured, ready="ready: "))
        call("login", *server, "--profile", "rosa", "--username", "rosa", "--password-stdin", stdin=f"{PASSWORD}\n")
        yield tmp_path


def _station(directory: Path, name: str, server: tuple[str, ...], authorities: Path) -> Path:
    call("node", "init", directory, *server, "--organization", name, "--node", f"{name}-1")
    certificate = directory / "node-cert.pem"
    call("node", "issue", directory / "node-cert.csr", "--ca", authorities / name, "--yes", "--out", certificate)
    settings = yaml.safe_load((directory / "node.yaml").read_text())
    settings |= {
        "executor": "process",
        "allow_unsandboxed": True,
        "process": {"modules": {REPOSITORY: "vantage.testing.inprocess"}},
    }
    configured = directory / "node.yaml"
    configured.write_text(yaml.safe_dump(settings))
    dora = authorities / "dora" / "ca-cert.pem"
    call("node", "trust", "add", "dora", "--certificate", dora, "--config", configured)
    return configured


def refused(*arguments: object) -> dict[str, Any]:
    """The error of a command that must fail."""
    program = commands.start(*arguments, "--output", "json")
    _out, err = program.communicate("", commands.PATIENCE)
    document: dict[str, Any] = json.loads(err.splitlines()[-1])["error"]
    assert program.returncode == document["exit_code"] != 0
    return document


@pytest.mark.slow
def test_the_whole_way(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = json.dumps({"value": MARKER})
    out, _err = call(*ASK, "echo", "--arguments", '{"value": 1}', "--output", "json", code=1)
    assert {each["failure"]["reason"] for each in json.loads(out)["results"]} == {"ORDER_MISSING"}
    assert "vantage key create" in out
    # Keys.
    assert "'vantage key create'" in refused("key", "rotate")["message"]
    made = call_json("key", "create", "--passphrase-stdin", stdin=f"{PASSPHRASE}\n")
    assert made["name"] == "organizations/dora/users/rosa"
    assert refused("key", "create", "--name", "dora/rosa")["reason"] == "ALREADY_EXISTS"
    uncertified = refused(*ASK, "echo", "--arguments", arguments)
    assert (uncertified["reason"], "vantage user issue" in uncertified["message"]) == ("CERTIFICATE_INVALID", True)
    answer = network / "rosa-cert.pem"
    call("user", "issue", made["request"], "--ca", network / "dora", "--expect", "rosa", "--yes", "--out", answer)
    monkeypatch.setenv("VANTAGE_KEY_PASSPHRASE", PASSPHRASE)
    assert call_json("key", "import", answer)["version"] > 1_700_000_000
    # Trust.
    assert refused(*ASK, "echo", "--arguments", arguments)["reason"] == "CERTIFICATE_UNTRUSTED"
    keys = profiles.keys_path("rosa")
    call("trust", "add", "clara", "--certificate", network / "clara" / "ca-cert.pem")
    (hilda,) = pki.load_certificates((network / "hilda" / "ca-cert.pem").read_bytes())
    call("trust", "add", "hilda", "--fingerprint", pki.fingerprint(hilda))
    standing = {each["organization"].rpartition("/")[2]: each["standing"] for each in call_json("trust", "list")}
    assert standing == dict.fromkeys(("clara", "dora", "hilda"), "trusted")
    # The question and its answers.
    out, err = call(*ASK, "echo", "--arguments", arguments)
    assert out.count(str(MARKER)) == 2
    assert "verified, signed by the node: clara, hilda" in err
    (task, *_) = call_json("task", "list")
    done = call_json("task", "result", task["name"])
    assert [(each["verified"], each["value"]) for each in done["results"]] == [(True, {"value": MARKER})] * 2
    failed, _err = call(*ASK, "report", "--arguments", '{"reason": "TOO_FEW_RECORDS"}', "--output", "json", code=1)
    assert [(each["verified"], each["failure"]["reason"]) for each in json.loads(failed)["results"]] == [
        (True, "TOO_FEW_RECORDS")
    ] * 2
    _files(network)
    _archive(network, task["name"], keys)
    _rotation(task["name"], keys)
    # Nothing of it is at the server.
    at_server = {each: each.read_bytes() for each in (network / "server").rglob("*") if each.is_file()}
    assert any(IMAGE.encode() in content for content in at_server.values())  # the scan looks at the right files
    assert not [each for each, content in at_server.items() if str(MARKER).encode() in content]
    assert refused("task", "result", task["name"], "--profile", "root")["reason"] in ("NOT_FOUND", "SEAL_INVALID")


def _files(network: Path) -> None:
    table, answers = network / "rosa.csv", network / "answers"
    table.write_text("a\n1\n2\n")
    answers.mkdir()
    saved = [str(answers / f"{each}.json") for each in ("clara", "hilda")]
    asked = call_json(*ASK, "count", "--file", f"table={table}", "--into", answers)
    task = asked["task"]
    for done in (asked, *(call_json("task", each, task, "--into", answers) for each in ("watch", "result"))):
        assert [each["saved"] for each in done["results"]] == saved
    assert [json.loads(each.read_text()) for each in answers.iterdir()] == [{"rows": 2}] * 2
    for command in (("task", "result", task), ("task", "watch", task), (*ASK, "echo")):
        assert "--into" in call(*command, "--into", answers, "--save", answers, code=2)[1]
    missing = refused(*ASK, "count", "--file", f"table={network / 'nowhere.csv'}")
    assert (missing["reason"], "nowhere.csv" in missing["message"]) == ("INVALID_ARGUMENT", True)


def _archive(network: Path, task: str, keys: Path) -> None:
    refusal = call("task", "result", task, "--sealed", code=2)[1]
    assert "--save" in refusal
    archive = network / "archive"
    call("task", "result", task, "--save", archive, "--sealed")
    assert sorted(each.name for each in archive.iterdir()) == ["clara.age", "hilda.age"]
    assert shutil.which("age") is not None, "age is missing: scripts/test installs it"
    opened = archive / "clara.json"
    command = ("age", "--decrypt", "--identity", keys / SECRETS_FILE, "--output", opened, archive / "clara.age")
    with Terminal.running(*command) as terminal:
        terminal.wait_for("passphrase")
        terminal.type(PASSPHRASE)
        assert terminal.end() == 0, terminal.shown
    assert json.loads(opened.read_bytes()) == {"value": MARKER}
    # Without a terminal: the keys as they are, from the one place that knows the passphrase.
    (plain := network / "plain.txt").write_text(call("key", "export", "--secret")[0])
    done = subprocess.run(["age", "-d", "-i", plain, archive / "hilda.age"], capture_output=True, check=True)
    assert json.loads(done.stdout) == {"value": MARKER}


def _rotation(task: str, keys: Path) -> None:
    before = call("key", "export")[0].strip()
    rotated = call_json("key", "rotate")
    assert rotated["recipient"] != before
    listed = call_json("key", "list")
    assert [(each["kind"], each["state"]) for each in listed] == [
        ("signing", "certified"),
        ("answers", "newest"),
        ("answers", "opens old answers"),
    ]
    assert call_json("task", "result", task)["results"][0]["value"] == {"value": MARKER}
    recovery = sealing.create_identity()
    call("key", "recovery", sealing.recipient_of(recovery))
    again = call_json(*ASK, "echo", "--arguments", json.dumps({"value": 1}))
    call("task", "result", again["task"], "--save", keys / "archive", "--sealed")
    sealed = sealing.SealedPayload((keys / "archive" / "hilda.age").read_bytes())
    assert json.loads(sealing.unseal(sealed, [recovery])) == {"value": 1}
    call("key", "revoke", before, "--yes")
    lost = json.loads(call("task", "result", task, "--output", "json", code=1)[0])
    assert {each["failure"]["reason"] for each in lost["results"]} == {"SEAL_INVALID"}
    assert call_json("key", "publish")["version"] > rotated["version"]
