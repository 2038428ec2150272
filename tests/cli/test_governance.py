"""Consent, roles, studies, the audit, and a network as a document: by the command line against a real server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Run
from vantage.client import Client, network
from vantage.common.errors import ConflictError, Reason
from vantage.testing import commands
from vantage.testing.commands import call, call_json

PASSWORD = "nine calm otters swim"

DOCUMENT: dict[str, Any] = {
    "organizations": {"clara": {"title": "Clara"}, "hilda": {"title": "Hilda"}},
    "roles": {"clara/helpdesk": {"description": "", "permissions": ["user:view:organization"]}},
    "collaborations": {"lungs": {"title": "Lungs", "organizations": ["clara", "hilda"]}},
    "studies": {"lungs/pilot": {"organizations": ["clara"]}},
    "nodes": {"clara/clara-1": {"collaborations": ["lungs"]}},
    "users": {
        "anna": {"organization": "clara", "roles": ["organization-admin"]},
        "importer": {"organization": "clara", "roles": ["researcher"], "service_account": True},
    },
}


@pytest.fixture
def server(tmp_path: Path, configuration: Path) -> Iterator[tuple[str, ...]]:
    """How to log in to a server that is no trial; root is logged in."""
    data = tmp_path / "server"
    said = dict(line.split(": ", 1) for line in call("server", "init", "--data", data)[0].splitlines())
    with commands.running("server", "start", "--data", data, "--listen", "127.0.0.1:0", ready="ready: ") as ready:
        options = ("--server", ready.split()[1], "--fingerprint", said["fingerprint"])
        token = said["bootstrap-token"]
        call("bootstrap", *options, "--profile", "root", "--token", token, "--password-stdin", stdin=f"{PASSWORD}\n")
        yield options
    assert os.environ["VANTAGE_CONFIG_DIR"] == str(configuration)


def test_a_server_is_brought_to_what_a_file_describes(server: tuple[str, ...], tmp_path: Path, run: Run) -> None:
    path = tmp_path / "network.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT))
    refused = run("apply", "-f", path)
    assert refused.exit_code == 2
    assert "+ collaboration lungs, inviting clara, hilda" in refused.stderr
    assert call_json("organization", "list") == []

    # Nobody has agreed yet: what hangs on it waits, the rest is done.
    first = run("apply", "-f", path, "--yes")
    assert first.exit_code != 0
    assert "made 6 of 8 changes" in first.stdout
    assert "+ service account importer of clara: researcher" in first.stderr
    told = next(line for line in first.stderr.splitlines() if line.startswith("token with which anna sets a password"))
    call("password", "reset", *server, "--stdin", stdin=f"{told.rpartition(' ')[2]}\n{PASSWORD}\n")
    call("login", "--username", "anna", *server, "--profile", "anna", "--password-stdin", stdin=f"{PASSWORD}\n")
    [invitation] = call_json("collaboration", "invitations", "--profile", "anna")
    assert (invitation["collaboration"], invitation["invited_by"]) == ("collaborations/lungs", "users/root")
    assert run("collaboration", "accept", "lungs", "--organization", "clara", "--profile", "root").exit_code != 0
    call("collaboration", "accept", "lungs", "--profile", "anna")

    second = run("apply", "-f", path, "--yes", "--profile", "root")
    assert (second.exit_code, "made 2 of 2 changes" in second.stdout) == (0, True), second.stderr
    third = run("apply", "-f", path, "--profile", "root")
    assert (third.exit_code, third.stdout.startswith("nothing to do")) == (0, True)

    # What is exported is a description of the same.
    path.write_text(run("export", "--profile", "root").stdout)
    assert yaml.safe_load(path.read_text())["studies"] == {
        "lungs/pilot": {"title": "pilot", "organizations": ["clara"]}
    }
    assert run("apply", "-f", path, "--profile", "root").stdout.startswith("nothing to do")

    exported = yaml.safe_load(path.read_text())["users"]
    assert exported["importer"]["service_account"]
    assert "service_account" not in exported["anna"]

    changed = yaml.safe_load(path.read_text())
    changed["roles"]["clara/helpdesk"]["permissions"] = ["user:view:own"]
    changed["nodes"]["clara/clara-1"]["collaborations"] = []
    path.write_text(yaml.safe_dump(changed))
    fourth = run("apply", "-f", path, "--yes", "--profile", "root")
    assert "~ role clara/helpdesk: +user:view:own -user:view:organization" in fourth.stderr
    assert call_json("node", "get", "clara/clara-1", "--profile", "root")["collaborations"] == []
    assert [each["scope"] for each in call_json("role", "get", "clara/helpdesk")["permissions"]] == ["OWN"]


def test_what_a_document_does_not_name_is_left_alone(server: tuple[str, ...], tmp_path: Path, run: Run) -> None:
    path = tmp_path / "network.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT))
    run("apply", "-f", path, "--yes")
    before = yaml.safe_load(run("export").stdout)
    path.write_text(
        yaml.safe_dump(
            {
                "organizations": {"clara": {}},
                "roles": {"clara/helpdesk": {"description": "Help"}},
                "collaborations": {"lungs": {}},
                "users": {"anna": {"title": "Anna"}, "importer": {}},
            }
        )
    )
    changed = run("apply", "-f", path, "--yes")
    assert "made 2 of 2 changes" in changed.stdout, changed.stderr
    before["roles"]["clara/helpdesk"]["description"] = "Help"
    before["users"]["anna"]["title"] = "Anna"
    assert yaml.safe_load(run("export").stdout) == before
    path.write_text(yaml.safe_dump({"users": {"anna": {"service_account": True}}}))
    assert "a person does not become a program" in run("apply", "-f", path, "--yes").stderr


def test_what_somebody_changed_after_the_difference_was_shown_is_left_alone(
    server: tuple[str, ...], tmp_path: Path, run: Run
) -> None:
    path = tmp_path / "network.yaml"
    path.write_text(yaml.safe_dump({kind: DOCUMENT[kind] for kind in ("organizations", "roles", "users")}))
    run("apply", "-f", path, "--yes")
    document = {
        "organizations": {"clara": {"title": "Old"}},
        "roles": {"clara/helpdesk": {"permissions": ["user:view:own"]}},
        "users": {"anna": {"roles": ["viewer"]}},
    }
    path.write_text(yaml.safe_dump(document))
    with Client.from_profile("root") as client:
        planned = network.plan(client, network.load(path))
        assert len(planned) == 3
        call("organization", "update", "clara", "--title", "New")
        call("role", "update", "clara/helpdesk", "--permission", "task:view:own")
        call("user", "update", "anna", "--role", "researcher")
        for change in planned:
            with pytest.raises(ConflictError) as caught:
                change.run(client)
            assert caught.value.reason is Reason.ETAG_MISMATCH, change
    assert call_json("user", "get", "anna")["roles"] == ["roles/researcher"]


def test_certificates_in_a_document_are_compared_by_what_they_say(
    server: tuple[str, ...], tmp_path: Path, run: Run
) -> None:
    call("organization", "init", "clara", "--ca", tmp_path / "ca")
    text = (tmp_path / "ca" / "ca-cert.pem").read_text()
    (tmp_path / "clara.pem").write_text(f"Issuer: clara\n{text}".replace("\n", "\r\n"))
    path = tmp_path / "network.yaml"
    path.write_text(yaml.safe_dump({"organizations": {"clara": {"certificates": ["clara.pem"]}}}))
    assert "made 1 of 1 changes" in run("apply", "-f", path, "--yes").stdout
    assert run("apply", "-f", path).stdout.startswith("nothing to do")


def test_a_document_that_is_wrong_changes_nothing(server: tuple[str, ...], tmp_path: Path, run: Run) -> None:
    path = tmp_path / "network.yaml"
    for text in ("organizations: [clara]", "planets: {}", "roles: {auditor: {permissions: [everything]}}", "{"):
        path.write_text(text)
        assert run("apply", "-f", path, "--yes").exit_code != 0
    assert call_json("organization", "list") == []


def test_updates_roles_studies_and_standing(server: tuple[str, ...], tmp_path: Path, run: Run) -> None:
    call("organization", "create", "clara")
    call("user", "create", "anna", "--organization", "clara", "--role", "organization-admin", "--password-stdin",
         stdin=PASSWORD)  # fmt: skip
    call("login", "--username", "anna", *server, "--profile", "anna", "--password-stdin", stdin=PASSWORD)
    call("collaboration", "create", "lungs", "--organization", "clara", "--profile", "root")
    call("collaboration", "accept", "lungs", "--profile", "anna")
    assert (
        call_json("organization", "update", "clara", "--title", "Clara Hospital", "--profile", "anna")["display_name"]
        == "Clara Hospital"
    )
    made = call_json("role", "create", "helpdesk", "--organization", "clara", "--permission", "user:view:organization",
                     "--profile", "anna")  # fmt: skip
    assert made["name"] == "organizations/clara/roles/helpdesk"
    beyond = run("role", "update", "clara/helpdesk", "--permission", "user:view:global", "--profile", "anna")
    assert "user" in beyond.stderr
    assert beyond.exit_code != 0
    stale = run("role", "update", "clara/helpdesk", "--description", "x", "--etag", "old", "--profile", "anna")
    assert "changed meanwhile" in stale.stderr
    call("role", "delete", "clara/helpdesk", "--yes", "--profile", "anna")
    call("study", "create", "lungs/pilot", "--organization", "clara", "--profile", "root")
    assert call_json("study", "list", "--profile", "anna")[0]["organizations"] == ["organizations/clara"]
    call("study", "update", "lungs/pilot", "--title", "The pilot", "--profile", "root")
    call("study", "delete", "lungs/pilot", "--yes", "--profile", "root")
    assert call_json("collaboration", "suspend", "lungs", "--profile", "anna")["state"] == "SUSPENDED"
    assert call_json("collaboration", "resume", "lungs", "--profile", "anna")["state"] == "ACTIVE"
    call("collaboration", "leave", "lungs", "--yes", "--profile", "anna")
    assert call_json("collaboration", "list", "--profile", "anna") == []

    listed = call_json("audit", "list", "--user", "anna", "--decision", "denied", "--profile", "root")
    assert {each["event"] for each in listed} == {"RoleService.UpdateRole"}
    log = tmp_path / "audit.jsonl"
    call("audit", "export", log, "--profile", "root")
    assert "is intact" in call("audit", "verify", log, "--key", f"{log}.pem")[0]
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    damaged = run("audit", "verify", log, "--key", f"{log}.pem")
    assert damaged.exit_code != 0
    assert "lines are missing or moved" in damaged.stderr
