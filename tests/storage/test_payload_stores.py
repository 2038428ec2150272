"""One conformance suite for the places of payloads: a directory, and a bucket of a real S3 service."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rpc.tasks.test_payloads import download, reason, upload
from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.common.errors import ConfigurationError, Reason, VantageError
from vantage.common.names import new_id
from vantage.server.config import ObjectStoreConfig
from vantage.server.payloads.objects import PART_SIZE
from vantage.server.payloads.places import open_store
from vantage.server.payloads.store import PayloadStore
from vantage.server.services.payload_collection import DEFAULT_GRACE
from vantage.testing.object_storage import ACCESS_KEY, SECRET_KEY, object_storage
from vantage.testing.task_server import ROSA, Network, request_id

MIB = 1024 * 1024
Opener = Callable[[], PayloadStore]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStoreConfig]:
    with object_storage(tmp_path_factory.mktemp("weed")) as config:
        yield config


@pytest.fixture(params=["files", "objects"])
def opener(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens the same place again and again, as processes do one after the other."""
    if request.param == "files":
        return lambda: open_store(tmp_path, None)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    config: ObjectStoreConfig = request.getfixturevalue("bucket")
    return lambda: open_store(tmp_path, config)


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def read(store: PayloadStore, name: str, offset: int = 0) -> bytes:
    blocks = [block async for block in store.read(name, offset)]
    assert all(len(block) <= MIB for block in blocks)
    return b"".join(blocks)


async def test_an_upload_goes_on_in_another_process_and_is_read_from_anywhere(opener: Opener) -> None:
    name, content = f"payloads/{new_id()}", os.urandom(2 * PART_SIZE + 3 * MIB + 5)
    store, half = opener(), PART_SIZE + MIB + 1
    assert await store.offset(name) == 0
    incoming = await store.begin(name, 0)
    for start in range(0, half, MIB):
        await incoming.append([content[start : min(half, start + MIB)]])
    assert incoming.size == half
    await incoming.keep()

    store = opener()
    assert await store.offset(name) == half
    assert not await store.finished(name)
    with pytest.raises(VantageError) as caught:
        await store.begin(name, 0)
    assert (caught.value.reason, caught.value.metadata) == (Reason.PAYLOAD_OFFSET_MISMATCH, {"offset": str(half)})
    incoming = await store.begin(name, half)
    await incoming.append([content[half:-5], memoryview(content)[-5:]])
    await incoming.finish(digest(content))
    await incoming.keep()

    store = opener()
    for offset in (0, 1, half - 1, half, PART_SIZE, len(content) - 1, len(content)):
        assert await read(store, name, offset) == content[offset:]
    await store.remove(name)
    await store.remove(name)
    assert await store.offset(name) == 0


@pytest.mark.parametrize("content", [b"", b"x"])
async def test_small_ones_and_none(opener: Opener, content: bytes) -> None:
    name, store = f"payloads/{new_id()}", opener()
    incoming = await store.begin(name, 0)
    await incoming.append([content])
    await incoming.finish(digest(content))
    assert await read(store, name) == content


async def test_wrong_bytes_leave_nothing(opener: Opener) -> None:
    name, store = f"payloads/{new_id()}", opener()
    incoming = await store.begin(name, 0)
    await incoming.append([b"wrong"])
    with pytest.raises(VantageError) as caught:
        await incoming.finish(digest(b"right"))
    assert caught.value.reason is Reason.PAYLOAD_DIGEST_MISMATCH
    await incoming.keep()
    assert await store.offset(name) == 0


async def test_a_death_between_the_last_byte_and_the_end_is_healed(opener: Opener) -> None:
    name, content = f"payloads/{new_id()}", b"all of it"
    incoming = await opener().begin(name, 0)
    await incoming.append([content])
    await incoming.keep()
    store = opener()
    incoming = await store.begin(name, len(content))
    await incoming.finish(digest(content))
    assert await read(store, name) == content


async def test_a_server_over_a_bucket(
    bucket: ObjectStoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
    config = bucket.model_copy(update={"credentials": Path("credentials"), "prefix": "shared/"})
    with pytest.raises(ConfigurationError, match="chmod 600"):
        open_store(tmp_path, config)
    credentials.chmod(0o600)
    network = Network(tmp_path)
    network.store = store = open_store(tmp_path, config)
    await network.start()
    try:
        content, identity = os.urandom(5 * MIB), request_id()
        broken = upload(
            network, content, identity, chunks=[content[: 2 * MIB][start : start + MIB] for start in (0, MIB)]
        )
        assert await reason(broken) is Reason.PAYLOAD_OFFSET_MISMATCH
        await network.stop()
        await network.start()
        known = await network.payload_stub().GetUpload(pb.GetUploadRequest(request_id=identity), metadata=ROSA)
        assert known.offset == 2 * MIB
        stored = await upload(network, content, identity, offset=2 * MIB)
        assert await download(network, stored.name, offset=3) == content[3:]
        removed, remove = asyncio.Event(), store.remove

        async def remove_and_tell(payload: str) -> None:
            await remove(payload)
            removed.set()

        monkeypatch.setattr(store, "remove", remove_and_tell)
        network.advance(DEFAULT_GRACE)
        await removed.wait()
        assert await store.offset(stored.name) == 0
        assert await reason(download(network, stored.name)) is Reason.NOT_FOUND
    finally:
        await network.stop()


async def test_a_bucket_that_cannot_be_used_is_told_without_its_secret(
    bucket: ObjectStoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        open_store(tmp_path, bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "marker-of-a-secret")
    with pytest.raises(ConfigurationError, match="SignatureDoesNotMatch") as caught:
        await open_store(tmp_path, bucket).start()
    assert "marker" not in str(caught.value)
    assert caught.value.__cause__ is None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    with pytest.raises(ConfigurationError, match="NoSuchBucket"):
        await open_store(tmp_path, bucket.model_copy(update={"bucket": "missing"})).start()
    credentials = tmp_path / "broken"
    credentials.write_text("marker-of-a-secret without a section\n")
    credentials.chmod(0o600)
    with pytest.raises(ConfigurationError, match="not a file of credentials") as caught:
        open_store(tmp_path, bucket.model_copy(update={"credentials": credentials}))
    assert "marker" not in str(caught.value)
