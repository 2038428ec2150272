"""A network that is set up and used by the command line alone: real processes of server, node and commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Run
from vantage.testing import commands
from vantage.testing.commands import call, call_json
from vantage.testing.terminal import Terminal

ROOT_PASSWORD = "seven wet horses sing"
PASSWORD = "nine calm otters swim"
REPOSITORY = "registry.test/algorithms/inprocess"
IMAGE = f"{REPOSITORY}@sha256:{'a' * 64}"


@dataclass
class Network:
    """Where it is. Its profiles: ``rosa``, a researcher of dora and the current one, and ``root``."""

    address: str
    fingerprint: str
    directory: Path


ASK = ("task", "run", "--image", IMAGE, "--collaboration", "trial", "--function")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    directory = tmp_path_factory.mktemp("network")
    before = os.environ.get("VANTAGE_CONFIG_DIR")
    os.environ["VANTAGE_CONFIG_DIR"] = str(directory / "configuration")
    try:
        with ExitStack() as stack:
            yield _set_up(directory, stack)
    finally:
        if before is None:
            os.environ.pop("VANTAGE_CONFIG_DIR", None)
        else:
            os.environ["VANTAGE_CONFIG_DIR"] = before


def _set_up(directory: Path, stack: ExitStack) -> Network:
    data = directory / "server"
    said = dict(line.split(": ", 1) for line in call("server", "init", "--data", data, "--trial")[0].splitlines())
    ready = stack.enter_context(
        commands.running("server", "start", "--data", data, "--listen", "127.0.0.1:0", ready="ready: ")
    )
    address, fingerprint = ready.split()[1], said["fingerprint"]
    server = ("--server", address, "--fingerprint", fingerprint)
    made = call_json(
        "bootstrap", *server, "--profile", "root", "--token", said["bootstrap-token"], "--password-stdin",
        stdin=f"{ROOT_PASSWORD}\n",
    )  # fmt: skip
    assert made == {"user": "users/root", "server": address, "profile": "root"}
    for name in ("clara", "hilda", "dora"):
        call("org", "init", name, "--ca", directory / name)
        created = call_json(
            "organization", "create", name, "--title", name.title(),
            "--ca-certificate", directory / name / "ca-cert.pem",
        )  # fmt: skip
        assert (created["name"], len(created["ca_certificates"])) == (f"organizations/{name}", 1)
    call("collaboration", "create", "trial", "--organization", "clara", "--organization", "hilda")
    members = call_json("collaboration", "add-member", "trial", "dora")["organizations"]
    assert members == ["organizations/clara", "organizations/dora", "organizations/hilda"]
    call("user", "create", "rosa", "--organization", "dora", "--role", "researcher", "--password-stdin", stdin=PASSWORD)
    for name in ("clara", "hilda"):
        call("node", "create", f"{name}-1", "--organization", name, "--collaboration", "trial")
        _station(directory / f"station-{name}", name, address, fingerprint, directory / name)
        stack.enter_context(
            commands.running("node", "start", "--config", directory / f"station-{name}" / "node.yaml", ready="ready: ")
        )
    call("login", *server, "--profile", "rosa", "--username", "rosa", "--password-stdin", stdin=f"{PASSWORD}\n")
    return Network(address, fingerprint, directory)


def _station(directory: Path, name: str, address: str, fingerprint: str, authority: Path) -> None:
    call(
        "node", "init", directory, "--server", address, "--fingerprint", fingerprint, "--organization", name,
        "--node", f"{name}-1",
    )  # fmt: skip
    call("node", "issue", directory / "node-cert.csr", "--ca", authority, "--yes", "--out", directory / "node-cert.pem")
    rows = {"clara": 3, "hilda": 5}[name]
    (directory / "lung.csv").write_text("age\n" + "1\n" * rows)
    settings = yaml.safe_load((directory / "node.yaml").read_text())
    settings |= {
        "datasets": [{"name": "lung", "path": "lung.csv", "format": "csv"}],
        "executor": "process",
        "allow_unsandboxed": True,
        "process": {"modules": {REPOSITORY: "vantage.testing.inprocess"}},
        "slots": 4,
    }
    settings["policy"]["allow_logs"] = name == "clara"
    settings["policy"]["allow_unsigned"] = True
    (directory / "node.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture(autouse=True)
def configured(network: Network, monkeypatch: pytest.MonkeyPatch, configuration: Path) -> None:
    """Profiles of the module's network; rosa asks unless said otherwise."""
    monkeypatch.setenv("VANTAGE_CONFIG_DIR", str(network.directory / "configuration"))


def failure(*arguments: object, code: int, stdin: str = "") -> dict[str, Any]:
    """The error of a command that must fail with this code."""
    _out, err = call(*arguments, "--output", "json", stdin=stdin, code=code)
    document: dict[str, Any] = json.loads(err.splitlines()[-1])["error"]
    assert document["exit_code"] == code
    return document


def test_both_answer(network: Network) -> None:
    done = call_json(*ASK, "count", "--organization", "clara", "--organization", "hilda", "--dataset", "table=lung")
    assert done["state"] == "SUCCEEDED"
    assert {each["organization"]: each["value"] for each in done["results"]} == {
        "organizations/clara": {"rows": 3},
        "organizations/hilda": {"rows": 5},
    }
    out, err = call(
        *ASK, "count", "--organization", "clara", "--organization", "hilda/hilda-1", "--dataset", "table=lung"
    )
    assert "clara:\n{" in out
    assert "hilda: succeeded" in err
    assert done["task"] in {f"tasks/{each['name'].split('/')[1]}" for each in call_json("task", "list")}


def test_arguments_for_one_and_the_only_collaboration(network: Network) -> None:
    done = call_json(
        "task", "run", "--image", IMAGE, "--function", "echo", "--organization", "clara", "--organization", "hilda",
        "--arguments", '{"value": 1}', "--arguments-for", 'hilda={"value": 2}',
    )  # fmt: skip
    assert [each["value"] for each in done["results"]] == [{"value": 1}, {"value": 2}]


def test_a_failure_is_told_and_is_the_exit_code(network: Network) -> None:
    out, err = call(*ASK, "crash", "--organization", "clara", code=1)
    assert out.startswith("clara: failed: ")
    assert "Error: no answer from clara" in err
    assert "Traceback" not in out + err
    refused, _err = call(*ASK, "count", "--organization", "clara", "--dataset", "table=heart", code=1)
    assert "DATASET_UNKNOWN" in refused


def test_log_lines_come_from_those_who_let_them_out(network: Network) -> None:
    ask = (*ASK, "talk", "--arguments", '{"lines": 3}', "--organization", "clara", "--organization", "hilda", "--log")
    _out, err = call(*ask)
    assert [line for line in err.splitlines() if " | " in line] == [f"clara | line {number}" for number in range(3)]
    assert "hilda: 100% step 2" in err


def test_detach_watch_result_cancel(network: Network) -> None:
    asked = call_json(*ASK, "hold", "--arguments", '{"gate": "a"}', "--organization", "clara", "--detach")
    name = asked["task"].split("/")[1]
    assert failure("task", "result", name, code=1)["message"].endswith(f"'vantage task watch {name}'")
    assert call_json("task", "get", name)["state"] == "ACTIVE"
    watcher = commands.start("task", "watch", name)
    assert watcher.stderr is not None
    assert any("running" in line for line in iter(watcher.stderr.readline, ""))
    assert call_json("task", "cancel", name)["state"] in ("CANCELLED", "ACTIVE")
    out, _err = watcher.communicate(timeout=60)
    assert watcher.returncode == 1
    assert "cancelled" in out
    assert json.loads(call("task", "result", name, "--output", "json", code=1)[0])["state"] == "CANCELLED"


def test_ctrl_c_leaves_the_task_and_says_how_to_attach(network: Network) -> None:
    program = commands.start(*ASK, "hold", "--arguments", '{"gate": "b"}', "--organization", "clara")
    assert program.stderr is not None
    assert any("running" in line for line in iter(program.stderr.readline, ""))
    program.send_signal(signal.SIGINT)
    _out, err = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "Traceback" not in err
    name = err.partition("vantage task watch ")[2].partition("'")[0]
    assert call_json("task", "get", name)["state"] == "ACTIVE"
    call("task", "cancel", name)


def test_the_same_request_id_never_asks_twice(network: Network) -> None:
    ask = (*ASK, "echo", "--arguments", '{"value": 1}', "--organization", "clara", "--request-id")
    first, again = (call_json(*ask, "0b7e5c9e-6f6a-4f0e-9d6f-0a3a1f1f6f10")["task"] for _ in range(2))
    assert first == again


def test_a_large_answer_is_saved(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "answer.bin"
    ask = (*ASK, "large", "--arguments", '{"size": 3000000}', "--organization", "clara", "--save", path)
    call(*ask)
    assert path.stat().st_size == 3_000_000


def test_two_commands_that_refresh_at_once_both_work(network: Network) -> None:
    path = network.directory / "configuration" / "tokens" / "rosa.json"
    assert path.stat().st_mode & 0o777 == 0o600
    document = json.loads(path.read_text())
    document["access_expires"] = "2020-01-01T00:00:00+00:00"
    path.write_text(json.dumps(document))
    several = [commands.start("whoami", "--output", "json") for _ in range(4)]
    answers = [program.communicate(timeout=60) for program in several]
    assert [program.returncode for program in several] == [0] * 4, answers
    assert {json.loads(out)["name"] for out, _err in answers} == {"users/rosa"}
    assert json.loads(path.read_text())["refresh_token"] != document["refresh_token"]
    call("whoami")


def test_who_is_not_let_in(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VANTAGE_CONFIG_DIR", str(tmp_path))
    login = ("login", "--server", network.address, "--username", "rosa", "--password-stdin")
    assert failure("whoami", code=2)["reason"] == "CONFIGURATION_INVALID"
    wrong = failure(*login, "--fingerprint", network.fingerprint, stdin="not it\n", code=3)
    assert wrong["reason"] == "CREDENTIALS_INVALID"
    other = failure(*login, "--fingerprint", "sha256:" + "0" * 64, stdin=f"{PASSWORD}\n", code=3)
    assert other["reason"] == "SERVER_CERTIFICATE_MISMATCH"
    unknown = failure(*login, stdin=f"{PASSWORD}\n", code=3)
    assert "--fingerprint" in unknown["message"]
    away = failure("login", "--server", "127.0.0.1:9", "--fingerprint", network.fingerprint, "--username", "rosa",
                   "--password-stdin", stdin="x\n", code=4)  # fmt: skip
    assert away["reason"] == "UNAVAILABLE"
    assert not (tmp_path / "profiles.yaml").exists()
    assert not (tmp_path / "tokens" / "default.json").exists()
    call(*login, "--fingerprint", network.fingerprint, stdin=f"{PASSWORD}\n")
    assert call("whoami")[0].splitlines()[0].split() == ["NAME", "users/rosa"]
    elsewhere = call("login", "--server", "127.0.0.1:9", "--insecure", "--username", "x", code=2)[1]
    assert "choose a name" in elsewhere
    call("logout")
    out, err = call("whoami", code=3)
    assert (out, err.startswith("Error: "), "vantage login" in err) == ("", True, True)


def test_nobody_does_what_they_may_not(network: Network) -> None:
    assert failure("organization", "create", "eve", code=3)["reason"] == "PERMISSION_DENIED"
    assert failure(*ASK, "echo", "--organization", "eve", code=2)["reason"] == "ORGANIZATION_NOT_MEMBER"
    assert failure("task", "get", "0199b2c4-5d1e-7c3a-9f00-1a2b3c4d5e6f", code=1)["reason"] == "NOT_FOUND"
    assert failure("organization", "create", "clara", "--profile", "root", code=1)["reason"] == "ALREADY_EXISTS"
    assert failure("organization", "get", "Not A Name", code=2)["reason"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--arguments", "nonsense"), "is not JSON"),
        (("--timeout", "soon"), "is not a duration"),
        (("--dataset", "lung"), "PARAM=DATASET"),
    ],
)
def test_malformed_questions_are_not_sent(run: Run, arguments: tuple[str, ...], why: str) -> None:
    done = run(*ASK, "echo", "--organization", "clara", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert why in done.stderr
    assert done.stderr.endswith("see 'vantage task run --help'\n")


def test_the_nouns_are_shown(network: Network) -> None:
    (clara,) = (each for each in call_json("node", "list") if each["name"].endswith("clara-1"))
    (lung,) = clara["datasets"]
    assert (clara["online"], lung["name"], lung["format"], lung["access"]) == (True, "lung", "csv", "file")
    assert clara["executor"] == "process"  # of a tour: without a sandbox, and it says so
    assert "yes" in call("node", "list", "--organization", "hilda")[0].splitlines()[1]
    assert call_json("node", "get", "clara/clara-1")["collaborations"] == ["collaborations/trial"]
    assert "sha256:" in call("organization", "get", "clara")[0]
    assert len(call_json("organization", "list", "--limit", "2")) == 2
    assert call("user", "get", "rosa")[0].splitlines()[1].split() == ["ORGANIZATION", "dora"]
    assert "researcher" in call("role", "list")[0]
    assert "task: " in call("role", "get", "researcher")[0]
    assert failure("role", "get", "emperor", code=1)["reason"] == "NOT_FOUND"


def test_what_is_made_can_be_changed_and_removed(network: Network, tmp_path: Path) -> None:
    root = ("--profile", "root")
    call("organization", "create", "frida", *root)
    call("org", "init", "frida", "--ca", tmp_path / "ca")
    changed = call("organization", "set-ca", "frida", tmp_path / "ca" / "ca-cert.pem", *root)[0]
    assert "sha256:" in changed
    call("collaboration", "add-member", "trial", "frida", *root)
    assert failure("organization", "delete", "frida", "--yes", *root, code=1)["reason"] == "IN_USE"
    assert "--yes" in failure("organization", "delete", "frida", *root, code=2)["message"]
    call("collaboration", "remove-member", "trial", "frida", *root)
    call("organization", "delete", "frida", "--yes", *root)
    assert failure("organization", "get", "frida", *root, code=1)["reason"] == "NOT_FOUND"


def test_a_password_is_changed(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("user", "create", "otto", "--organization", "dora", "--role", "viewer", "--profile", "root",
         "--password-stdin", stdin="three old bridges bend\n")  # fmt: skip
    monkeypatch.setenv("VANTAGE_CONFIG_DIR", str(tmp_path))
    login = ("login", "--server", network.address, "--fingerprint", network.fingerprint, "--username", "otto")
    call(*login, "--password-stdin", stdin="three old bridges bend\n")
    change = ("password", "change", "--passwords-stdin")
    assert failure(*change, stdin="wrong password\nfour new kettles boil\n", code=3)["reason"] == "CREDENTIALS_INVALID"
    assert failure(*change, stdin="three old bridges bend\nshort\n", code=2)["reason"] == "PASSWORD_TOO_WEAK"
    call(*change, stdin="three old bridges bend\nfour new kettles boil\n")
    assert (
        failure("login", "--password-stdin", stdin="three old bridges bend\n", code=3)["reason"]
        == "CREDENTIALS_INVALID"
    )
    call("login", "--password-stdin", stdin="four new kettles boil\n")


def test_whoever_reads_enough_may_close_the_pipe(network: Network) -> None:
    done = subprocess.run(
        ["bash", "-c", "set -o pipefail; vantage role list --output json | head -1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[\n"
    assert done.stderr == ""


def test_a_person_at_a_terminal(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VANTAGE_CONFIG_DIR", str(tmp_path))
    with Terminal.with_("login", "--server", network.address, "--username", "rosa") as terminal:
        terminal.wait_for("Does its operator see the same")
        assert network.fingerprint in terminal.shown
        terminal.type("y")
        terminal.wait_for("Password of rosa")
        terminal.type(PASSWORD)
        assert terminal.end() == 0
        assert f"logged in to {network.address} as rosa" in terminal.shown
        assert PASSWORD not in terminal.shown
    assert yaml.safe_load((tmp_path / "profiles.yaml").read_text())["profiles"]["default"]["fingerprint"] == (
        network.fingerprint
    )
    with Terminal.with_(*ASK, "count", "--organization", "clara", "--dataset", "table=lung") as terminal:
        assert terminal.end() == 0
        assert "clara" in terminal.shown
        assert "succeeded" in terminal.shown
        assert '"rows": 3' in terminal.shown
    with Terminal.with_(*ASK, "hold", "--arguments", '{"gate": "c"}', "--organization", "clara") as terminal:
        terminal.wait_for("running")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
        name = terminal.shown.replace("\r\n", "").partition("vantage task cancel ")[2][:36]
    with Terminal.with_("task", "cancel", name) as terminal:
        assert terminal.end() == 0


def test_a_person_who_does_not_trust_the_server(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VANTAGE_CONFIG_DIR", str(tmp_path))
    with Terminal.with_("login", "--server", network.address, "--username", "rosa") as terminal:
        terminal.wait_for("Does its operator see the same")
        terminal.type("n")
        assert terminal.end() == 130
    assert not (tmp_path / "profiles.yaml").exists()


def test_an_organization_answers_for_itself(network: Network, tmp_path: Path) -> None:
    root = ("--profile", "root")
    for name, organization, role in (("cora", "dora", "collaboration-admin"), ("carl", "clara", "organization-admin")):
        call("user", "create", name, "--organization", organization, "--role", role, *root, "--password-stdin",
             stdin=PASSWORD)  # fmt: skip
        call("login", "--server", network.address, "--fingerprint", network.fingerprint, "--profile", name,
             "--username", name, "--password-stdin", stdin=PASSWORD)  # fmt: skip
    call("profile", "use", "rosa")
    cora, carl = ("--profile", "cora"), ("--profile", "carl")
    made = call_json("collaboration", "create", "answers", "--organization", "clara", *cora)
    assert (made["organizations"], [each["state"] for each in made["members"]]) == ([], ["INVITED"])
    (invitation,) = call_json("collaboration", "invitations", *carl)
    assert (invitation["collaboration"], invitation["invited_by"]) == ("collaborations/answers", "users/cora")
    assert "answers" in call("collaboration", "invitations", *carl)[0]
    assert failure("collaboration", "accept", "answers", "--organization", "clara", *cora, code=3)
    assert call_json("collaboration", "accept", "answers", *carl)["state"] == "ACTIVE"
    assert call_json("collaboration", "invitations", *carl) == []
    assert call_json("collaboration", "suspend", "answers", *carl)["state"] == "SUSPENDED"
    assert "clara (suspended)" in call("collaboration", "get", "answers", *carl)[0]
    assert call_json("collaboration", "resume", "answers", *carl)["state"] == "ACTIVE"
    assert failure("collaboration", "decline", "answers", *carl, code=1)["reason"] == "IN_USE"
    call("collaboration", "leave", "answers", "--yes", *carl)
    call("collaboration", "add-member", "answers", "clara", *cora)
    call("collaboration", "decline", "answers", *carl)
    call("collaboration", "delete", "answers", "--yes", *cora)
