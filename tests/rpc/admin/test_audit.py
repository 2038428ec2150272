"""The server's audit, over the wire: what is recorded, who sees it, and that its export proves itself."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from vantage.api.admin.v1 import audit_service_pb2 as pb
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import organization_service_pb2_grpc
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.types.v1 import types_pb2
from vantage.common.audit import verify
from vantage.common.errors import Reason
from vantage.server.domain.permissions import Operation, Permission, Resource, Scope, rights_of
from vantage.server.domain.principals import UserPrincipal
from vantage.server.services import audit as audit_service
from vantage.server.storage import audit_store
from vantage.server.storage.database import sqlite_engine
from vantage.testing.server import PASSWORD, bearer, running_server

from .conftest import Hospitals, reason
from .test_consent import CLARA, HILDA, IMAGE, accept, ask, invite


async def entries(hospitals: Hospitals, by: str = "root", **filters: object) -> list[pb.AuditEntry]:
    request = pb.ListAuditEntriesRequest(page_size=500, filter=pb.AuditFilter(**filters))  # type: ignore[arg-type]
    answer = await hospitals.audit.ListAuditEntries(request, metadata=hospitals.tokens[by])
    return list(answer.entries)


async def export(hospitals: Hospitals, path: Path) -> ec.EllipticCurvePublicKey:
    root = hospitals.tokens["root"]
    with path.open("wb") as file:
        async for part in hospitals.audit.ExportAudit(pb.ExportAuditRequest(), metadata=root):
            file.write(part.chunk)
    state = await hospitals.audit.GetAuditLog(pb.GetAuditLogRequest(), metadata=root)
    key = serialization.load_pem_public_key(state.public_key.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


async def test_who_what_from_where_and_why(hospitals: Hospitals) -> None:
    wrong = user_pb.CreateUserRequest(
        user_id="max", organization=CLARA, roles=["roles/root"], password="a secret of somebody"
    )
    assert await reason(hospitals.users.CreateUser(wrong, metadata=hospitals.tokens["anna"])) is Reason.ROLE_EXCEEDS_OWN
    await hospitals.add_user("rosa", "clara", "researcher", by="anna")
    made, refused = await entries(hospitals, principal="users/anna", event="UserService.CreateUser")
    assert (made.decision, made.target, made.organization) == (pb.AUDIT_DECISION_ALLOWED, "users/rosa", CLARA)
    assert made.details["roles"] == "roles/researcher"
    assert made.peer.startswith("ipv4:127.0.0.1:")
    assert (refused.decision, refused.target) == (pb.AUDIT_DECISION_DENIED, "users/max")
    assert refused.reason.startswith("ROLE_EXCEEDS_OWN: ")
    for secret in (PASSWORD, "a secret of somebody"):
        assert secret not in str([made, refused])


async def test_the_callers_own_request_id_is_kept(hospitals: Hospitals) -> None:
    wanted = organization_pb.CreateOrganizationRequest(organization_id="olga")
    own = (*hospitals.tokens["root"], ("x-request-id", "ward-7.2026"))
    await hospitals.organizations.CreateOrganization(wanted, metadata=own)
    [made] = await entries(hospitals, target="organizations/olga")
    assert made.request_id == "ward-7.2026"
    wanted.organization_id = "otto"
    await hospitals.organizations.CreateOrganization(wanted, metadata=hospitals.tokens["root"])
    [made] = await entries(hospitals, target="organizations/otto")
    assert len(made.request_id) == 32


async def test_log_ins_and_strangers(hospitals: Hospitals) -> None:
    login = auth_pb.LoginRequest(username="anna", password="wrong")
    assert await reason(hospitals.auth.Login(login)) is Reason.CREDENTIALS_INVALID
    created = hospitals.organizations.CreateOrganization(organization_pb.CreateOrganizationRequest())
    assert await reason(created) is Reason.UNAUTHENTICATED
    denied = await entries(hospitals, decision=pb.AUDIT_DECISION_DENIED)
    assert [(each.event, each.reason.partition(":")[0]) for each in denied] == [
        ("OrganizationService.CreateOrganization", "UNAUTHENTICATED"),
        ("AuthService.Login", "CREDENTIALS_INVALID"),
    ]
    allowed = await entries(hospitals, event="AuthService.Login", decision=pb.AUDIT_DECISION_ALLOWED)
    assert len(allowed) == 3


async def test_a_task_with_image_and_digests_and_never_content(hospitals: Hospitals, tmp_path: Path) -> None:
    await invite(hospitals, CLARA, HILDA)
    await accept(hospitals, "anna", "hugo")
    question = ask(CLARA, HILDA)
    question.spec.targets[0].arguments.media_type = "application/json"
    question.spec.targets[0].arguments.sealing = types_pb2.SEALING_NONE
    question.spec.targets[0].arguments.inline = b'{"patient": "Jane Roe"}'
    task = (await hospitals.tasks.CreateTask(question, metadata=hospitals.tokens["anna"])).task
    await hospitals.tasks.CreateTask(question, metadata=hospitals.tokens["anna"])  # once more is no second task
    [entry] = await entries(hospitals, target=task.name)
    assert entry.event == "TaskService.CreateTask"
    assert entry.details["image"] == IMAGE
    assert entry.details["arguments_bytes"] == str(len(b'{"patient": "Jane Roe"}'))
    assert entry.details["arguments_digest"].startswith("sha256:")
    assert entry.details["organizations"] == f"{CLARA} {HILDA}"
    stranger = hospitals.tasks.CreateTask(ask("organizations/beatrix"), metadata=hospitals.tokens["anna"])
    assert await reason(stranger) is Reason.ORGANIZATION_NOT_MEMBER
    [refused] = await entries(hospitals, event="TaskService.CreateTask", decision=pb.AUDIT_DECISION_FAILED)
    assert refused.reason.startswith("ORGANIZATION_NOT_MEMBER")
    key = await export(hospitals, tmp_path / "audit.jsonl")
    text_of = (tmp_path / "audit.jsonl").read_text()
    assert "Jane Roe" not in text_of
    assert task.name in text_of
    report = verify(tmp_path / "audit.jsonl", key)
    assert (report.problems, report.unsigned) == ([], 0)


async def test_an_export_that_was_changed_does_not_verify(hospitals: Hospitals, tmp_path: Path) -> None:
    key = await export(hospitals, tmp_path / "audit.jsonl")
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)
    for number, changed in enumerate(
        (
            [lines[0].replace(b"ALLOWED", b"DENIED "), *lines[1:]],
            [*lines[:2], *lines[3:]],
            [lines[1], lines[0], *lines[2:]],
        )
    ):
        path = tmp_path / f"changed-{number}.jsonl"
        path.write_bytes(b"".join(changed))
        assert not verify(path, key).intact


async def test_an_admin_sees_what_their_organization_asked(hospitals: Hospitals) -> None:
    await hospitals.add_user("rosa", "clara", "researcher", by="anna")
    await hospitals.add_user("hans", "hilda", "researcher", by="hugo")
    seen = await entries(hospitals, by="anna")
    assert {each.principal for each in seen} == {"users/anna"}
    assert {each.target for each in seen} == {"users/rosa"}
    for call in (
        hospitals.audit.GetAuditLog(pb.GetAuditLogRequest(), metadata=hospitals.tokens["anna"]),
        hospitals.audit.ListAuditEntries(pb.ListAuditEntriesRequest(), metadata=hospitals.tokens["rosa"]),
    ):
        assert await reason(call) is Reason.PERMISSION_DENIED
    first = pb.ListAuditEntriesRequest(page_size=3)
    page = await hospitals.audit.ListAuditEntries(first, metadata=hospitals.tokens["root"])
    second = pb.ListAuditEntriesRequest(page_size=3, page_token=page.next_page_token)
    following = await hospitals.audit.ListAuditEntries(second, metadata=hospitals.tokens["root"])
    ids = [each.id for each in (*page.entries, *following.entries)]
    assert len(ids) == 6
    assert ids == sorted(ids, reverse=True)


async def test_a_flood_of_strangers_does_not_fill_the_disk(hospitals: Hospitals) -> None:
    request = organization_pb.CreateOrganizationRequest(organization_id="flood")
    calls = [hospitals.organizations.CreateOrganization(request) for _ in range(200)]
    for call in calls:
        assert await reason(call) is Reason.UNAUTHENTICATED
    recorded = await entries(hospitals, event="OrganizationService.CreateOrganization", decision=2)
    assert 0 < len(recorded) <= 100


async def test_a_change_and_its_entry_are_there_together_or_not_at_all(
    hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry cannot be written: then the change is undone as well."""

    def broken(*_: object) -> None:
        raise OSError("no entry today")

    root = hospitals.tokens["root"]
    request = organization_pb.CreateOrganizationRequest(organization_id="unseen")
    with monkeypatch.context() as patch:
        patch.setattr(audit_store, "append", broken)
        assert await reason(hospitals.organizations.CreateOrganization(request, metadata=root)) is Reason.INTERNAL
    read = organization_pb.GetOrganizationRequest(name="organizations/unseen")
    assert await reason(hospitals.organizations.GetOrganization(read, metadata=root)) is Reason.NOT_FOUND


async def test_after_a_crash_every_entry_is_in_the_file_once(tmp_path: Path) -> None:
    data = tmp_path / "server"

    def ids_in_file() -> list[int]:
        lines = (data / audit_service.FILE).read_text().splitlines()
        return [record["id"] for record in map(json.loads, lines) if "id" in record]

    def unmark() -> None:
        engine = sqlite_engine(data / "server.db")
        with engine.connect().execution_options(writing=True) as connection, connection.begin():
            connection.execute(text("UPDATE audit SET exported = 0"))
        engine.dispose()

    async def restart() -> None:
        async with running_server(data):
            pass

    async with running_server(data) as server:
        root = bearer(await server.bootstrap())
        organizations = organization_service_pb2_grpc.OrganizationServiceStub(server.channel())
        for name in ("clara", "hilda"):
            request = organization_pb.CreateOrganizationRequest(organization_id=name)
            await organizations.CreateOrganization(request, metadata=root)
    before = ids_in_file()
    assert len(before) == 3
    # The process died after the file was written and before the rows were marked.
    unmark()
    await restart()
    assert ids_in_file() == before
    # It died in the middle of the file's second line: what is not whole is written again.
    lines = (data / audit_service.FILE).read_bytes().splitlines(keepends=True)
    (data / audit_service.FILE).write_bytes(lines[0] + lines[1][:50])
    unmark()
    await restart()
    assert ids_in_file() == before
    assert verify(data / audit_service.FILE).intact


async def test_a_fault_while_copying_does_not_end_the_writer(
    hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = hospitals.server.server.audit
    append_all, loop, copied = audit._log.append_all, asyncio.get_running_loop(), asyncio.Event()
    failed = False

    def faulty(records: object) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise RuntimeError("a fault")
        append_all(records)  # type: ignore[arg-type]
        loop.call_soon_threadsafe(copied.set)

    monkeypatch.setattr(audit_service, "_RETRY", 0)
    monkeypatch.setattr(audit._log, "append_all", faulty)
    await hospitals.add_organization("karla")
    async with asyncio.timeout(30):
        await copied.wait()
    assert failed


async def test_an_export_that_is_given_up_copies_no_entry_twice(
    hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = hospitals.server.server.audit
    everything = rights_of([Permission(Resource.AUDIT, Operation.VIEW, Scope.GLOBAL)])
    root = UserPrincipal("users/root", None, frozenset(), "session", frozenset(), everything)
    await audit.state(root)
    loop, began, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    append_all = audit._log.append_all

    def slow(records: object) -> None:
        loop.call_soon_threadsafe(began.set)
        release.wait(30)
        append_all(records)  # type: ignore[arg-type]

    monkeypatch.setattr(audit._log, "append_all", slow)
    assert audit._writer is not None
    audit._writer.cancel()
    await asyncio.gather(audit._writer, return_exceptions=True)
    await hospitals.add_organization("karla")
    given_up = asyncio.create_task(audit.state(root))
    await began.wait()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    again = asyncio.create_task(audit.state(root))
    release.set()
    await again
    lines = (hospitals.server.server.data / audit_service.FILE).read_text().splitlines()
    ids = [record["id"] for record in map(json.loads, lines) if "id" in record]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("key", ["9" * 30, "-1", "9" * 5_000, "one"])
async def test_a_forged_position_is_no_fault(hospitals: Hospitals, key: str) -> None:
    request = pb.ListAuditEntriesRequest(page_size=1)
    token = (await hospitals.audit.ListAuditEntries(request, metadata=hospitals.tokens["root"])).next_page_token
    fingerprint, _key = json.loads(base64.urlsafe_b64decode(token))
    request.page_token = base64.urlsafe_b64encode(json.dumps([fingerprint, key]).encode()).decode()
    listing = hospitals.audit.ListAuditEntries(request, metadata=hospitals.tokens["root"])
    assert await reason(listing) is Reason.PAGE_TOKEN_INVALID
