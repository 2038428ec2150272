"""Payloads that nobody needs go, those of tasks stay; an organization has only so much room."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.rpc.tasks.test_payloads import download, reason, upload
from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.api.task.v1 import task_service_pb2
from vantage.common.errors import Reason, error
from vantage.server.domain.contents import Quota
from vantage.server.payloads.files import PayloadFiles
from vantage.server.services import payload_collection
from vantage.server.services.payload_collection import DEFAULT_GRACE
from vantage.server.services.payloads import Header
from vantage.testing.task_server import PRINCIPALS, ROSA, Network, as_, request_id, spec

ALPHA, BETA = "organizations/alpha", "organizations/beta"
MINUTE = timedelta(minutes=1)


class Watched(PayloadFiles):
    """A store that tells when something is removed, and can fail or wait before it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.removed: asyncio.Queue[str] = asyncio.Queue()
        self.broken = False

    async def remove(self, payload: str) -> None:
        if self.broken:
            self.removed.put_nowait("failed")
            raise error(Reason.PAYLOAD_STORE_UNAVAILABLE, "not now")
        await super().remove(payload)
        self.removed.put_nowait(payload)


@pytest.fixture
async def store(network: Network) -> Watched:
    await network.stop()
    network.store = store = Watched(network.directory / "payloads")
    await network.start()
    return store


def files(network: Network) -> int:
    return sum(1 for each in (network.directory / "payloads").rglob("*") if each.is_file())


async def refer(network: Network, *names: str) -> None:
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec(*([ALPHA, BETA][: len(names)])))
    for target, name in zip(request.spec.targets, names, strict=True):
        target.arguments.reference = name
    await network.stub().CreateTask(request, metadata=ROSA)


async def test_what_no_task_refers_to_goes_after_the_grace(network: Network, store: Watched) -> None:
    used, unused = await upload(network, b"used"), await upload(network, b"unused")
    await refer(network, used.name)
    network.advance(DEFAULT_GRACE - MINUTE)
    later = await upload(network, b"later")
    network.advance(MINUTE)
    assert await store.removed.get() == unused.name
    assert await reason(download(network, unused.name)) is Reason.NOT_FOUND
    assert await download(network, used.name) == b"used"
    assert await download(network, later.name) == b"later"
    assert files(network) == 2
    network.advance(DEFAULT_GRACE)
    assert await store.removed.get() == later.name
    assert await download(network, used.name) == b"used"
    with pytest.raises(Exception, match="no complete upload"):
        await refer(network, unused.name)


async def test_an_upload_that_nobody_finishes_goes_and_may_begin_again(network: Network, store: Watched) -> None:
    content, identity = b"x" * 300_000, request_id()
    broken = upload(network, content, identity, chunks=[content[:1000]])
    assert await reason(broken) is Reason.PAYLOAD_OFFSET_MISMATCH
    network.advance(DEFAULT_GRACE - MINUTE)
    # Taken up again: its time begins anew.
    again = upload(network, content, identity, offset=1000, chunks=[content[1000:2000]])
    assert await reason(again) is Reason.PAYLOAD_OFFSET_MISMATCH
    network.advance(2 * MINUTE)
    known = await network.payload_stub().GetUpload(pb.GetUploadRequest(request_id=identity), metadata=ROSA)
    assert known.offset == 2000
    network.advance(DEFAULT_GRACE)
    await store.removed.get()
    assert files(network) == 0
    stored = await upload(network, content, identity)
    assert await download(network, stored.name) == content


async def test_after_a_restart_the_time_counts_from_theupload(network: Network, store: Watched) -> None:
    stored = await upload(network, b"abc")
    await network.stop()
    network.clock.advance(DEFAULT_GRACE)
    await network.start()
    assert await store.removed.get() == stored.name


async def test_a_clock_that_is_set_back_delays_a_removal_and_prevents_none(network: Network, store: Watched) -> None:
    back = timedelta(hours=3)
    stored = await upload(network, b"abc")
    await network.stop()
    await network.start()  # what a former process left waits like what this one took
    late = await upload(network, b"late")
    network.clock.jump(-back)
    network.advance(DEFAULT_GRACE)
    await upload(network, b"other")  # written after the collection has looked
    assert store.removed.empty()
    network.advance(back)
    async with asyncio.timeout(30):
        assert {await store.removed.get() for _ in range(2)} == {stored.name, late.name}


async def test_many_at_once_go_in_batches(network: Network, store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_collection, "BATCH", 2)
    names = {(await upload(network, bytes([number]))).name for number in range(5)}
    network.advance(DEFAULT_GRACE)
    assert {await store.removed.get() for _ in names} == names
    assert files(network) == 0


async def test_a_removal_that_was_interrupted_is_taken_up(network: Network, store: Watched) -> None:
    identity = request_id()
    stored = await upload(network, b"abc", identity)
    store.broken = True
    network.advance(DEFAULT_GRACE)
    assert await store.removed.get() == "failed"
    # Between its steps: nobody can read it or go on with it, and its bytes are still there.
    assert await reason(download(network, stored.name)) is Reason.NOT_FOUND
    assert await reason(upload(network, b"abc", identity)) is Reason.IN_USE
    assert files(network) == 1
    await network.stop()
    store.broken = False
    await network.start()
    assert await store.removed.get() == stored.name
    assert files(network) == 0


async def test_an_upload_under_way_is_left_alone(network: Network, store: Watched) -> None:
    content, identity = b"x" * 2000, request_id()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield content[:1000]
        begun.set()
        await go_on.wait()
        yield content[1000:]

    header = Header(identity, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}", 0)
    async with asyncio.TaskGroup() as group:
        uploading = group.create_task(network.payloads.upload(PRINCIPALS["users/rosa"], header, chunks()))
        await begun.wait()
        other = await upload(network, b"other")
        network.advance(2 * DEFAULT_GRACE)
        assert await store.removed.get() == other.name
        go_on.set()
    assert await download(network, uploading.result().name) == content


async def test_an_organization_has_only_so_much_room(network: Network, store: Watched) -> None:
    await network.stop()
    network.payload_quota = Quota(size=1000)
    await network.start()
    identity = request_id()
    first = await upload(network, b"x" * 600, identity)
    refused = upload(network, b"y" * 401)
    assert await reason(refused) is Reason.PAYLOAD_QUOTA_EXCEEDED
    # A node of the organization counts for it too, another organization for itself, and a repetition for nothing.
    assert await reason(upload(network, b"y" * 401, caller=f"{ALPHA}/nodes/one")) is Reason.PAYLOAD_QUOTA_EXCEEDED
    await upload(network, b"y" * 401, caller="users/otto")
    assert await upload(network, b"x" * 600, identity) == first
    # One upload for many targets counts once.
    await refer(network, first.name, first.name)
    await upload(network, b"y" * 400)
    assert await reason(upload(network, b"z")) is Reason.PAYLOAD_QUOTA_EXCEEDED
    network.advance(DEFAULT_GRACE)
    for _ in range(2):
        await store.removed.get()
    await upload(network, b"z" * 400)


async def test_an_organization_has_only_so_many(network: Network, store: Watched) -> None:
    await network.stop()
    network.payload_quota = Quota(count=3)
    await network.start()
    identity = request_id()
    first = await upload(network, b"", identity)
    # One that was begun and never sent takes a row as well.
    assert await reason(upload(network, b"abc", chunks=[])) is Reason.PAYLOAD_OFFSET_MISMATCH
    await upload(network, b"", caller=f"{ALPHA}/nodes/one")
    assert await reason(upload(network, b"")) is Reason.PAYLOAD_QUOTA_EXCEEDED
    assert await upload(network, b"", identity) == first
    await upload(network, b"", caller="users/otto")
    network.advance(DEFAULT_GRACE)
    for _ in range(4):
        await store.removed.get()
    await upload(network, b"")


async def test_one_upload_serves_every_target_and_nobody_else(network: Network) -> None:
    one = await upload(network, b"for both")
    await refer(network, one.name, one.name)
    for organization in (ALPHA, BETA):
        node = network.node(f"{organization}/nodes/one")
        await node.hello()
        assign = await node.assigned()
        assert assign.spec.targets[0].arguments.reference == one.name
        assert await download(network, one.name, caller=f"{organization}/nodes/one") == b"for both"
    for caller in ("organizations/gamma/nodes/one", "organizations/alpha/nodes/two", "users/otto", "users/stranger"):
        assert await reason(download(network, one.name, caller=caller)) is Reason.NOT_FOUND
    assert (
        await network.payload_stub().GetUpload(pb.GetUploadRequest(request_id=request_id()), metadata=as_("users/otto"))
        == pb.GetUploadResponse()
    )
