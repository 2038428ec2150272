"""What becomes of calls whose callers are gone, and of streams whose callers are no longer who they were."""

import asyncio
import threading
import uuid
from typing import Any

import grpc
import pytest

from tests.rpc.identity.world import World, reason
from vantage.api.admin.v1 import user_credential_service_pb2 as admin_pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.api.identity.v1 import credential_service_pb2 as credential_pb
from vantage.api.task.v1 import task_service_pb2 as task_pb
from vantage.api.task.v1 import task_service_pb2_grpc
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.server.domain.permissions import Reach
from vantage.server.storage import audit_store
from vantage.server.storage.audit_store import Listing
from vantage.testing.server import bearer


@pytest.mark.parametrize("event", ["UserService.DeleteUser", "CredentialService.EndSession"])
async def test_what_was_committed_counts_although_its_caller_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    me, another = bearer(await world.login()), bearer(await world.login())
    assert await world.who(me) == "users/rosa"
    sessions = (await world.own.ListSessions(credential_pb.ListSessionsRequest(), metadata=me)).sessions
    [mine] = [each.id for each in sessions if each.current]
    database, arrived, release = world.server.server.database, asyncio.Event(), threading.Event()
    submit = database.submit
    blocking = submit(lambda _connection: release.wait(30))

    def submit_and_tell(unit: Any) -> Any:
        arrived.set()
        return submit(unit)

    monkeypatch.setattr(database, "submit", submit_and_tell)
    call = (
        world.users.DeleteUser(user_pb.DeleteUserRequest(name="users/rosa"), metadata=world.root)
        if event == "UserService.DeleteUser"
        else world.own.EndSession(credential_pb.EndSessionRequest(session_id=mine), metadata=another)
    )
    await arrived.wait()
    call.cancel()
    for _ in range(2):  # behind the cancellation, on the same connection
        await world.who(world.root)
    release.set()
    await blocking
    await world.server.server.gate.settle()
    assert await reason(world.who(me)) is Reason.TOKEN_INVALID
    entries = await database.read(
        lambda connection: audit_store.list_entries(connection, Reach(everything=True), Listing(event=event), None, 10)
    )
    assert [each.reason for each in entries] == [""]


@pytest.mark.parametrize("change", ["sessions", "roles"])
async def test_a_stream_asks_again_who_its_caller_is(world: World, change: str) -> None:
    me = bearer(await world.login())
    tasks = task_service_pb2_grpc.TaskServiceStub(world.server.channel())
    stream = tasks.RunTasks(metadata=me)

    async def ask() -> task_pb.RunTasksResponse:
        await stream.write(task_pb.RunTasksRequest(request_id=str(uuid.uuid4())))
        answer = await stream.read()
        assert isinstance(answer, task_pb.RunTasksResponse)
        return answer

    assert (await ask()).failure.reason  # no sensible question, and the stream goes on
    if change == "sessions":
        revoked = admin_pb.RevokeSessionsRequest(user="users/rosa")
        await world.admin.RevokeSessions(revoked, metadata=world.root)
    else:
        await world.create("another")  # somebody else is none of its business
        assert (await ask()).failure.reason
        changed = user_pb.UpdateUserRequest(user=user_pb.User(name="users/rosa", roles=["roles/viewer"]))
        changed.update_mask.paths.append("roles")
        await world.users.UpdateUser(changed, metadata=world.root)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask()
    expected = Reason.TOKEN_INVALID if change == "sessions" else Reason.UNAVAILABLE
    assert error_from_rpc(caught.value).reason is expected
