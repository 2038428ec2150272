"""A relay on a real socket, spoken to with raw bytes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import grpc
import psutil
import pytest

from vantage.api.relay.v1 import relay_service_pb2 as pb
from vantage.api.relay.v1 import relay_service_pb2_grpc
from vantage.common import pki
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason
from vantage.common.rpc import bearer, error_from_rpc
from vantage.server.relay import limits
from vantage.server.relay.limits import RelayCounters, RelayLimits
from vantage.server.relay.tickets import Side, TicketIssuer
from vantage.testing.relay import METHOD, RawCall, RunningRelay, running_relay

MIB = 1024 * 1024
PROGRAM = (sys.executable, "-m", "vantage.server.relay")


async def reason_of(call: RawCall) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await drain(call)
    return error_from_rpc(caught.value).reason


async def drain(call: RawCall) -> int:
    """Read to the end and count the bytes."""
    size = 0
    while isinstance(message := await call.read(), bytes):
        size += len(message)
    return size


async def until(relay: RunningRelay, reached: Callable[[RelayCounters], bool]) -> None:
    """Wait until the relay has come so far."""
    pairs, changed = relay.relay.pairs, asyncio.Event()
    pairs.watchers.add(changed)
    async with asyncio.timeout(30):
        while not reached(pairs.counters):
            await changed.wait()
            changed.clear()
    pairs.watchers.discard(changed)


async def init(*arguments: str | Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(*PROGRAM, "init", *arguments, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    return process.returncode, said.decode()


@pytest.mark.parametrize("tls", [False, True])
async def test_bytes_pass_unchanged_in_both_directions(tmp_path: Path, tls: bool) -> None:
    async with running_relay(tmp_path / "relay", tls=tls) as relay:
        left, right = await relay.pair()
        # Nothing that protobuf could parse: what is not looked at cannot be refused.
        for message in (b"\xff\xff\xff", b"", os.urandom(MIB)):
            await left.write(message)
            assert await right.read() == message
            await right.write(message[::-1])
            assert await left.read() == message[::-1]
        await left.write(b"last words")
        await left.done_writing()
        await right.done_writing()
        assert await drain(right) == len(b"last words")
        assert await drain(left) == 0
        for side in (left, right):
            assert await side.code() is grpc.StatusCode.OK
        counters = relay.relay.pairs.counters
        assert (counters.pairs, counters.total_pairs, counters.waiting) == (0, 1, 0)


async def test_a_client_that_uses_the_contract_speaks_with_one_that_does_not(tmp_path: Path) -> None:
    async with running_relay(tmp_path / "relay") as relay:
        pair = str(uuid.uuid4())
        stub = relay_service_pb2_grpc.RelayServiceStub(relay.channel())
        typed = stub.Open(metadata=(bearer(relay.ticket(pair, Side.OPENS)),))
        raw = relay.open(relay.ticket(pair, Side.ANSWERS))
        await typed.write(pb.OpenRequest(data=b"hello"))
        assert await raw.read() == pb.OpenResponse(data=b"hello").SerializeToString()
        await raw.write(pb.OpenRequest(data=b"x" * MIB).SerializeToString())
        answer = await typed.read()
        assert isinstance(answer, pb.OpenResponse)
        assert answer.data == b"x" * MIB
        typed.cancel()
        raw.cancel()


async def test_a_side_that_is_lost_ends_the_other(tmp_path: Path) -> None:
    async with running_relay(tmp_path / "relay") as relay:
        left, right = await relay.pair()
        left.cancel()
        assert await reason_of(right) is Reason.RELAY_PEER_LOST
        left, right = await relay.pair()
        right.cancel()
        assert await reason_of(left) is Reason.RELAY_PEER_LOST


async def test_tickets_admit_once_and_pair_only_what_belongs_together(tmp_path: Path) -> None:
    async with running_relay(tmp_path / "relay", limits=RelayLimits(pair_seconds=0.3, drain_seconds=0)) as relay:
        pair = str(uuid.uuid4())
        ticket = relay.ticket(pair, Side.OPENS)
        left, right = relay.open(ticket), relay.open(relay.ticket(pair, Side.ANSWERS))
        await right.initial_metadata()
        assert await reason_of(relay.open(ticket)) is Reason.RELAY_TICKET_INVALID
        left.cancel()
        assert await reason_of(right) is Reason.RELAY_PEER_LOST

        # The same side twice, another job, another relay, another server, no ticket.
        waiting = relay.open(relay.ticket("second", Side.OPENS))
        await until(relay, lambda counters: counters.waiting == 1)
        assert await reason_of(relay.open(relay.ticket("second", Side.OPENS))) is Reason.RELAY_TICKET_INVALID
        other_job = relay.ticket("second", Side.ANSWERS, job="tasks/other")
        assert await reason_of(relay.open(other_job)) is Reason.RELAY_TICKET_INVALID
        assert await reason_of(waiting) is Reason.RELAY_PEER_LOST  # nobody came in time
        assert await reason_of(relay.open(relay.ticket(pair, Side.OPENS, relay="relay-2"))) is (
            Reason.RELAY_TICKET_INVALID
        )
        stranger = TicketIssuer(pki.create_key(), SystemClock()).issue("relay-1", pair, Side.OPENS, "j", "n")
        assert await reason_of(relay.open(stranger)) is Reason.RELAY_TICKET_INVALID
        bare: RawCall = relay.channel().stream_stream(METHOD)()
        assert await reason_of(bare) is Reason.RELAY_TICKET_INVALID
        assert await reason_of(relay.open(relay.issuer.watch("relay-1"))) is Reason.RELAY_TICKET_INVALID
        assert relay.relay.pairs.counters.waiting == 0


async def test_pairs_per_job_are_limited_and_room_is_given_back(tmp_path: Path) -> None:
    limits = RelayLimits(max_pairs_per_job=2, max_pairs=3, drain_seconds=0)
    async with running_relay(tmp_path / "relay", limits=limits) as relay:
        first, _ = await relay.pair()
        second, _ = await relay.pair()
        assert await reason_of(relay.open(relay.ticket("x", Side.OPENS))) is Reason.RATE_LIMITED
        await relay.pair("tasks/other")
        assert await reason_of(relay.open(relay.ticket("x", Side.OPENS, job="tasks/third"))) is Reason.RATE_LIMITED
        first.cancel()
        second.cancel()
        await until(relay, lambda counters: counters.pairs == 1)
        await relay.pair()
        await relay.pair()


async def test_a_reader_that_stops_stops_the_writer(tmp_path: Path) -> None:
    async with running_relay(tmp_path / "relay") as relay:
        left, right = await relay.pair()
        await left.write(bytes(MIB))
        await right.read()
        process = psutil.Process()
        before = process.memory_info().rss
        sent = 0

        async def write() -> None:
            nonlocal sent
            for _ in range(200):
                await left.write(bytes(MIB))
                sent += 1

        writer = asyncio.create_task(write())
        done, _ = await asyncio.wait({writer}, timeout=1)
        assert not done
        # One message here, and the windows of three connections in one process.
        assert sent < 32
        assert process.memory_info().rss - before < 96 * MIB
        # And it goes on when the reader does.
        for _ in range(200):
            assert await right.read() == bytes(MIB)
        await writer


async def test_the_rate_of_a_pair_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.sleep(seconds)

    monkeypatch.setattr(limits, "asyncio", SimpleNamespace(sleep=sleep))
    bounds = RelayLimits(rate_per_pair=10 * MIB, drain_seconds=0)
    async with running_relay(tmp_path / "relay", limits=bounds) as relay:
        left, right = await relay.pair()
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def write() -> None:
            for _ in range(30):
                await left.write(bytes(MIB))

        writer = asyncio.create_task(write())
        for _ in range(30):
            await right.read()
        await writer
        # A second's worth passes at once; what the rate adds is no longer, however busy the machine is.
        assert loop.time() - began > 1.8
        assert sum(waited) < 2.2


async def test_watching_tells_the_load_and_the_end(tmp_path: Path) -> None:
    async with running_relay(tmp_path / "relay") as relay:
        stub = relay_service_pb2_grpc.RelayServiceStub(relay.channel())
        call = stub.WatchLoad(pb.WatchLoadRequest(), metadata=(bearer(relay.issuer.watch("relay-1")),))
        first = await call.read()
        assert isinstance(first, pb.WatchLoadResponse)
        assert (first.pairs, first.draining, first.max_pairs) == (0, False, 4_000)
        left, right = await relay.pair()
        load = await call.read()
        assert isinstance(load, pb.WatchLoadResponse)
        assert load.pairs + load.waiting >= 1
        # Stopping: told to who watches, refused to who comes, and what does not end is broken off.
        stopping = asyncio.create_task(relay.relay.pairs.drain())
        while not load.draining:
            read = await call.read()
            assert isinstance(read, pb.WatchLoadResponse)
            load = read
        assert await reason_of(relay.open(relay.ticket("late", Side.OPENS))) is Reason.SERVER_STOPPING
        assert {await reason_of(left), await reason_of(right)} <= {Reason.SERVER_STOPPING, Reason.RELAY_PEER_LOST}
        await stopping
        ticket = relay.ticket("late", Side.OPENS)
        wrong = stub.WatchLoad(pb.WatchLoadRequest(), metadata=(bearer(ticket),))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wrong.read()
        assert error_from_rpc(caught.value).reason is Reason.RELAY_TICKET_INVALID


async def test_the_program_starts_tells_where_and_drains(tmp_path: Path) -> None:
    issuer = TicketIssuer(pki.create_key(), SystemClock())
    keys, data, ready = tmp_path / "keys.json", tmp_path / "relay", tmp_path / "ready"
    keys.write_text(issuer.key_set())
    options = ("--data", data, "--name", "relay-1", "--keys", keys)
    status, said = await init(*options)
    assert status == 0, said
    status, said = await init(*options)
    assert status == 1
    assert "already" in said
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "start", "--data", data, "--listen", "127.0.0.1:0", "--insecure", "--ready-file", ready,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            address = (await process.stdout.readline()).decode().removeprefix("ready: ").strip()
        async with grpc.aio.insecure_channel(address) as channel:
            opener: RawCall = channel.stream_stream(METHOD)(
                metadata=(bearer(issuer.issue("relay-1", "p", Side.OPENS, "j", "n")),)
            )
            answerer: RawCall = channel.stream_stream(METHOD)(
                metadata=(bearer(issuer.issue("relay-1", "p", Side.ANSWERS, "j", "n")),)
            )
            await opener.write(b"over two processes")
            assert await answerer.read() == b"over two processes"
            process.send_signal(signal.SIGTERM)
            # It lets the pair end by itself.
            await answerer.write(b"still here")
            assert await opener.read() == b"still here"
            await opener.done_writing()
            await answerer.done_writing()
            assert await drain(opener) == await drain(answerer) == 0
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
