"""Links: many channels over one connection at a time, which may break at any moment."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.node.tunnels.wires import MemoryWire, wires
from vantage.common.errors import Reason, VantageError, error
from vantage.node.tunnels import frames
from vantage.node.tunnels.channel import MAX_WINDOW, WINDOW, Budget, Channel
from vantage.node.tunnels.frames import Kind
from vantage.node.tunnels.link import MAX_HELD, Link, Opening, Parties
from vantage.node.tunnels.wire import MAX_DATA

MIB = 1024 * 1024
A = Parties("pair", "tasks/j", "image@sha256:1", "runs/a", "runs/b", "organizations/b/nodes/b")
B = Parties("pair", "tasks/j", "image@sha256:1", "runs/b", "runs/a", "organizations/a/nodes/a")


class Pair:
    """Two ends of a link, and what the second was asked to open."""

    def __init__(self, a: Parties = A, b: Parties = B) -> None:
        self.openings: asyncio.Queue[Opening] = asyncio.Queue()
        self.left = Link(a, Budget(64 * MIB), lambda link, opening: None)
        self.right = Link(b, Budget(64 * MIB), lambda link, opening: self.openings.put_nowait(opening))

    async def carry(self, cut_after: int | None = None) -> list[BaseException | None]:
        """Let both go on over a new connection until it ends; what each side saw."""
        one, other = wires(cut_after)
        return list(await asyncio.gather(self.left.carry(one), self.right.carry(other), return_exceptions=True))

    @asynccontextmanager
    async def connected(self, one: MemoryWire | None = None, other: MemoryWire | None = None) -> AsyncIterator[None]:
        if one is None or other is None:
            one, other = wires()
        carrying = asyncio.gather(self.left.carry(one), self.right.carry(other), return_exceptions=True)
        await self.left.attached.wait()
        await self.right.attached.wait()
        try:
            yield
        finally:
            await one.close()
            await carrying

    async def open(self, label: str = "x") -> tuple[Channel, Channel]:
        mine = self.left.open(label, 1.0)
        theirs = (await self.openings.get()).channel
        self.right.accept(theirs)
        await mine.opened
        return mine, theirs


async def read_all(channel: Channel) -> bytes:
    parts = []
    while data := await channel.read():
        parts.append(data)
    return b"".join(parts)


async def reason_of(awaitable: object) -> Reason:
    assert asyncio.iscoroutine(awaitable) or asyncio.isfuture(awaitable)
    with pytest.raises(VantageError) as caught:
        await awaitable
    return caught.value.reason


async def test_channels_carry_both_directions_and_end_each_by_itself() -> None:
    pair = Pair()
    async with pair.connected():
        mine, theirs = await pair.open()
        sent = os.urandom(3 * MIB)

        async def send() -> None:
            await mine.write(sent)
            await mine.finish()

        sending = asyncio.create_task(send())
        assert await read_all(theirs) == sent
        await sending
        # Half is closed, the other half is not.
        await theirs.write(b"answer")
        await theirs.finish()
        assert await read_all(mine) == b"answer"
        assert pair.left.channels == pair.right.channels == 0
        with pytest.raises(VantageError):
            await mine.write(b"more")


async def test_a_hundred_channels_at_once() -> None:
    pair = Pair()

    async def echo() -> None:
        while True:
            channel = (await pair.openings.get()).channel
            pair.right.accept(channel)
            tasks.create_task(one_echo(channel))

    async def one_echo(channel: Channel) -> None:
        while data := await channel.read():
            await channel.write(data)
        await channel.finish()

    async def one(number: int) -> None:
        channel = pair.left.open(f"x{number}", 1.0)
        await channel.opened
        content = random.Random(number).randbytes(50_000 + number)
        writing = asyncio.create_task(channel.write(content))
        received = b""
        while len(received) < len(content):
            received += await channel.read()
        assert received == content
        await writing
        await channel.finish()
        assert await channel.read() == b""

    async with pair.connected():
        async with asyncio.TaskGroup() as tasks:
            echoing = tasks.create_task(echo())
            await asyncio.gather(*(one(number) for number in range(100)))
            echoing.cancel()
        assert pair.left.channels == 0


async def test_a_connection_may_break_at_every_message() -> None:
    rng = random.Random(7)
    content = rng.randbytes(MIB)
    for number in range(40):
        pair = Pair()

        async def keep(pair: Pair = pair, number: int = number) -> None:
            cut: int | None = number
            while not pair.left.ended.is_set():
                await pair.carry(cut)
                cut = None if cut is None or cut < 3 else cut // 2

        keeping = asyncio.create_task(keep())
        mine, theirs = await pair.open()

        async def talk(channel: Channel, content: bytes, rng: random.Random) -> None:
            view = memoryview(content)
            while view:
                size = rng.choice((1, 100, 5_000, 100_000))
                await channel.write(bytes(view[:size]))
                view = view[size:]
            await channel.finish()

        talking = [
            asyncio.create_task(talk(mine, content, random.Random(number))),
            asyncio.create_task(talk(theirs, content[::-1], random.Random(-number))),
        ]
        there, back = await asyncio.gather(read_all(theirs), read_all(mine))
        assert (there, back) == (content, content[::-1])
        await asyncio.gather(*talking)
        await pair.left.close(60.0)
        await keeping
        # The farewell may find no connection: then the server tells that the run has ended.
        assert pair.right.problem is None or pair.right.problem.reason is Reason.PEER_ENDED


async def test_a_reader_that_stops_stops_its_writer_and_nobody_else() -> None:
    pair = Pair()
    async with pair.connected():
        stuck, not_read = await pair.open()
        writing = asyncio.create_task(stuck.write(bytes(64 * MIB)))
        lively, read = await pair.open()
        for _ in range(100):
            await lively.write(bytes(100_000))
            received = 0
            while received < 100_000:
                received += len(await read.read())
        assert not writing.done()
        assert not_read._waiting <= WINDOW
        assert pair.left._held <= MAX_HELD
        # A writer without a connection is bounded as well.
    blocked = asyncio.create_task(lively.write(bytes(64 * MIB)))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not blocked.done()
    assert pair.left._held <= MAX_HELD + 2 * frames.MAX_PAYLOAD
    pair.left.fail(error(Reason.PEER_LOST, "enough"))
    assert await reason_of(writing) is Reason.PEER_LOST
    assert await reason_of(blocked) is Reason.PEER_LOST


async def test_windows_grow_for_fast_readers_within_the_budget() -> None:
    pair = Pair()
    async with pair.connected():
        mine, theirs = await pair.open()
        writing = asyncio.create_task(mine.write(bytes(64 * MIB)))
        received = 0
        while received < 64 * MIB:
            received += len(await theirs.read())
        await writing
        assert WINDOW < theirs._window <= MAX_WINDOW
        before = pair.right._budget._left
        theirs.close()
        assert pair.right._budget._left > before


async def test_much_data_takes_few_messages_there_and_fewer_back() -> None:
    pair = Pair()
    one, other = wires()
    async with pair.connected(one, other):
        mine, theirs = await pair.open()
        writing = asyncio.create_task(mine.write(bytes(64 * MIB)))
        received = 0
        while received < 64 * MIB:
            received += len(await theirs.read())
        await writing
        there, back = one.outgoing.passed, other.outgoing.passed
        assert len(there) < 2 * 64
        assert len(back) < 1.5 * 64
        # A relay takes a batch as one message, also when TLS has made it longer.
        assert max(map(len, there)) * (1 + 32 / 16_384) < MAX_DATA


async def test_refusals_resets_and_the_end_of_a_run_reach_the_other_side() -> None:
    pair = Pair()
    async with pair.connected():
        refused = pair.left.open("x", 1.0)
        opening = await pair.openings.get()
        pair.right.refuse(opening.channel, error(Reason.PEER_NOT_READY, "nobody listens"))
        assert await reason_of(refused.opened) is Reason.PEER_NOT_READY
        mine, theirs = await pair.open()
        await theirs.write(b"last")
        theirs.close()
        assert await mine.read() == b"last"
        assert await reason_of(mine.read()) is Reason.PEER_LOST
        assert await reason_of(theirs.read()) is Reason.CANCELLED
        mine, theirs = await pair.open()
        finished, finished_there = await pair.open()
        await theirs.write(b"result")
        await finished_there.write(b"all")
        await finished_there.finish()
        await pair.right.close(60.0)
        assert await mine.read() == b"result"
        assert await reason_of(mine.read()) is Reason.PEER_ENDED
        # What was ended in order is read to its end.
        assert await read_all(finished) == b"all"
        assert await reason_of(pair.left.open("x", 1.0).opened) is Reason.PEER_ENDED


async def test_what_was_said_last_arrives_over_another_connection() -> None:
    pair = Pair()
    one, other = wires()
    async with asyncio.timeout(30):
        async with pair.connected(one, other):
            mine, theirs = await pair.open()
            one.outgoing.spoil = lambda data: []
            await mine.write(b"the last")
            await mine.finish()
            closing = asyncio.create_task(pair.left.close(3600.0))
        assert not closing.done()
        await asyncio.gather(pair.carry(), closing)
        assert await read_all(theirs) == b"the last"
    assert pair.right.problem is not None
    assert pair.right.problem.reason is Reason.PEER_ENDED


async def test_nobody_waits_to_say_farewell_alone() -> None:
    pair = Pair()
    async with pair.connected():
        pass
    async with asyncio.timeout(30):
        await pair.left.close(3600.0)
    assert pair.left.ended.is_set()
    unmet = Pair()
    unmet.left.open("x", 1.0)
    async with asyncio.timeout(30):
        await unmet.left.close(3600.0)


async def test_a_run_that_ends_waits_for_nobody_longer_than_it_is_told() -> None:
    pair = Pair()
    one, other = wires()
    async with pair.connected(one, other):
        mine, _theirs = await pair.open()
        one.outgoing.spoil = lambda data: []
        await mine.write(b"the last")
        await pair.left.close(0.05)  # connected to somebody who does not confirm
    assert pair.left.ended.is_set()


@pytest.mark.parametrize("field", ["pair", "job", "order", "image", "run", "peer_run"])
async def test_whoever_was_paired_wrongly_is_not_talked_to(field: str) -> None:
    pair = Pair(b=replace(B, **{field: "other"}))
    pair.left.open("x", 1.0)
    seen = await pair.carry()
    reasons = {each.reason for each in seen if isinstance(each, VantageError)}
    assert Reason.CERTIFICATE_UNTRUSTED in reasons
    assert pair.openings.empty()


async def test_a_restarted_node_is_not_taken_for_the_one_before() -> None:
    pair = Pair()
    async with pair.connected():
        mine, _ = await pair.open()
    pair.right = Link(B, Budget(MIB), lambda link, opening: None)
    await pair.carry()
    assert await reason_of(mine.read()) is Reason.PEER_LOST
    assert pair.left.ended.is_set()


@pytest.mark.parametrize(
    "frame",
    [
        b"\x63" + bytes(8),
        frames.HEADER.pack(Kind.DATA, 1, frames.MAX_PAYLOAD + 1),
        frames.encode(Kind.HELLO, 0, b"{}"),
        frames.encode(Kind.OPEN, 9, b"[]"),
        frames.encode(Kind.OPEN, 9, b'{"label": 1, "timeout": 1}'),
        frames.encode(Kind.OPEN, 9, b'{"label": "x", "timeout": NaN}'),
        frames.encode(Kind.OPEN, 9, b"[" * 60_000),
        frames.encode(Kind.DATA, 1, b""),
        frames.encode(Kind.OPENED, 1),
        frames.encode(Kind.ACK, 0, b"x"),
        frames.encode_number(Kind.ACK, 0, 1_000_000),
        b"".join(frames.encode(Kind.DATA, 1, bytes(frames.MAX_PAYLOAD)) for _ in range(5)),
    ],
)
async def test_nodes_that_break_the_protocol_are_left(frame: bytes) -> None:
    pair = Pair()
    one, other = wires()
    carrying = asyncio.gather(pair.left.carry(one), pair.right.carry(other), return_exceptions=True)
    await pair.open()
    await one.outgoing.put(frame)
    seen = await carrying
    assert isinstance(seen[1], VantageError)
    assert seen[1].reason is Reason.PROTOCOL_VIOLATION
    assert one.closed
    assert other.closed


async def test_a_node_that_asks_and_does_not_listen_fills_nothing() -> None:
    one, other = wires()
    busy = error(Reason.TOO_MANY_CHANNELS, "no room " * 1_000)
    link = Link(B, Budget(MIB), lambda link, opening: link.refuse(opening.channel, busy))
    carrying = asyncio.create_task(link.carry(other))
    await one.outgoing.put(frames.encode_object(Kind.HELLO, 0, Link(A, Budget(MIB), lambda *_: None)._hello()))
    asking = frames.encode(Kind.OPEN, 1, b'{"label":"x","timeout":1}')

    async def ask() -> None:
        while link._held < 10 * MAX_HELD:
            await one.outgoing.put(asking * 100)

    with pytest.raises(VantageError, match="cut by the test"):
        await ask()
    with pytest.raises(VantageError, match="does not confirm"):
        await carrying
