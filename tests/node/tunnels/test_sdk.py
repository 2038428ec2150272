"""The SDK's peers through real nodes: streams, messages, tables, forwarded ports."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from vantage.algorithm.peers import Peers
from vantage.algorithm.streams import _AHEAD, PeerError, Stream
from vantage.common.errors import Reason
from vantage.node.door import SOCKET_NAME, Door
from vantage.testing import doors
from vantage.testing.peer_network import PeerNetwork

MIB = 1024 * 1024


@asynccontextmanager
async def algorithms(directory: Path, *organizations: str) -> AsyncIterator[tuple[PeerNetwork, list[Peers]]]:
    """The SDK in each of the runs of one task, as a container would use it."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(PeerNetwork.running(directory, organizations))
        await network.ask(*organizations)
        peers = []
        for each in organizations:
            door: Door = await doors.lent(each).door
            place = await stack.enter_async_context(door.served())
            # As a container sees it: below a short path.
            link = stack.enter_context(TemporaryDirectory()) / Path(each[:1])
            link.symlink_to(place)
            peers.append(await stack.enter_async_context(Peers(f"unix:{link / SOCKET_NAME}", door.context.token)))
        yield network, peers


@asynccontextmanager
async def connected(one: Peers, other: Peers, name: str) -> AsyncIterator[tuple[Stream, Stream]]:
    async with other.listen("ring") as streams:
        opening = asyncio.create_task(one.connect(name, "ring"))
        theirs = await anext(streams)
        yield await opening, theirs


async def test_streams_messages_and_tables(tmp_path: Path) -> None:
    async with algorithms(tmp_path, "clara", "hilda") as (_, (clara, hilda)):
        assert await clara.wait_for() == await hilda.wait_for() == ("clara", "hilda")
        async with connected(clara, hilda, "hilda") as (mine, theirs):
            content = os.urandom(5 * MIB)
            await asyncio.gather(mine.write(content), assert_reads(theirs, content))
            # Cancelling whoever waits harms nothing.
            waiting = asyncio.create_task(mine.read())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            channel, other = mine.messages(), theirs.messages(max_size=MIB)
            for message in (b"", b"x", bytes(MIB)):
                await asyncio.gather(channel.send(message), assert_receives(other, message))
            table = pa.table({"age": [61, 74], "site": ["a", "b"]})
            await other.send_table(table)
            assert (await channel.receive_table()).equals(table)
            await other.send_table(pd.DataFrame({"age": [1.5]}))
            assert (await channel.receive_table()).to_pydict() == {"age": [1.5]}
            # Nor does it in the middle of a length or of a message.
            for part in (bytes(5), b"\0\0\x06abc"):
                await mine.write(part)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await other.receive()
            async with asyncio.timeout(10):
                await asyncio.gather(mine.write(b"def"), assert_receives(other, b"abcdef"))
            for number in range(1_000):
                await channel.send(number.to_bytes(2, "big"))
            await channel.finish()
            assert [int.from_bytes(each, "big") async for each in other] == list(range(1_000))
            assert await other.receive() is None
            await other.finish()
            assert await mine.read() == b""
        async with connected(clara, hilda, "hilda") as (mine, theirs):
            await mine.write(b"everything")
            await mine.finish()
            await mine.close()  # what was finished is safe
            assert await theirs.read_exactly(10) == b"everything"
            assert await theirs.read() == b""
        async with connected(clara, hilda, "hilda") as (mine, theirs):
            sending = asyncio.create_task(theirs.messages().send(bytes(4 * MIB)))
            with pytest.raises(PeerError) as caught:
                await mine.messages(max_size=MIB).receive()
            assert caught.value.code is Reason.OUT_OF_RANGE
            assert not sending.done()
            sending.cancel()


async def test_messages_are_sent_whole_or_not_at_all(tmp_path: Path) -> None:
    async with (
        algorithms(tmp_path, "clara", "hilda") as (_, (clara, hilda)),
        connected(clara, hilda, "hilda") as (mine, theirs),
    ):
        async with asyncio.timeout(60):
            channel, other = mine.messages(), theirs.messages()
            # Nobody reads: the first waits in its middle, the second for its turn.
            begun, queued = (asyncio.create_task(channel.send(each)) for each in (b"a" * 8 * MIB, b"never"))
            await asyncio.sleep(0)
            for each in (queued, begun):
                each.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await each
            # What was begun comes whole; of two at the same time each does, before the end.
            after = [asyncio.create_task(channel.send(each * 4 * MIB)) for each in (b"b", b"c")]
            ending = asyncio.create_task(channel.finish())
            received = [each async for each in other]
            assert [(len(each), each[:1], len(set(each))) for each in received] == [
                (8 * MIB, b"a", 1),
                (4 * MIB, b"b", 1),
                (4 * MIB, b"c", 1),
            ]
            await asyncio.gather(*after, ending)


async def assert_reads(stream: Stream, content: bytes) -> None:
    assert await stream.read_exactly(len(content)) == content


async def assert_receives(channel: object, message: bytes) -> None:
    assert hasattr(channel, "receive")
    assert await channel.receive() == message


async def test_errors_say_what_happened(tmp_path: Path) -> None:
    async with algorithms(tmp_path, "clara", "hilda") as (network, (clara, hilda)):
        for peer, label, timeout, code in (
            ("beatrix", "ring", 30, Reason.NOT_FOUND),
            ("hilda", "ring", 1, Reason.PEER_NOT_READY),
            ("hilda", "No Label", 30, Reason.INVALID_ARGUMENT),
        ):
            with pytest.raises(PeerError) as caught:
                await clara.connect(peer, label, timeout=timeout)
            assert caught.value.code is code
        async with hilda.listen("ring") as streams:
            with pytest.raises(PeerError) as caught:
                async with hilda.listen("ring"):
                    pass
            assert caught.value.code is Reason.IN_USE
            opening = asyncio.create_task(clara.connect("hilda", "ring"))
            theirs = await anext(streams)
            mine = await opening
            await theirs.close()
            with pytest.raises(PeerError) as caught:
                await mine.read()
            assert caught.value.code is Reason.PEER_LOST
            mine = await clara.connect("hilda", "ring")
            network.end("hilda")
            with pytest.raises(PeerError) as caught:
                await mine.read()
            assert caught.value.code is Reason.PEER_ENDED
        seen = []
        async for peers in clara.watch():
            seen = [each.state for each in peers if each.organization == "hilda"]
            if seen == ["ended"]:
                break
        with pytest.raises(PeerError) as caught:
            await clara.wait_for(["hilda"], timeout=30)
        assert caught.value.code is Reason.PEER_ENDED


async def test_programs_that_know_only_tcp_talk_over_forwarded_ports(tmp_path: Path) -> None:
    async with algorithms(tmp_path, "clara", "hilda", "beatrix") as (network, peers):

        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Answers when the other side has ended its half."""
            content = await reader.read()
            writer.write(content.upper())
            writer.write_eof()
            await writer.drain()
            writer.close()

        # A port that is free on this machine, where all three pretend to be alone.
        program = await asyncio.start_server(shout, "127.0.0.1", 0)
        port = program.sockets[0].getsockname()[1]
        ports = await asyncio.gather(*(each.forward(port) for each in peers))
        assert [set(each) for each in ports] == [{"clara", "hilda", "beatrix"}] * 3
        assert ports[0]["clara"] == ports[1]["hilda"] == port

        async def ask(port: int, content: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(content)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            return answer

        content = b"abc" * 500_000
        answers = await asyncio.gather(
            ask(ports[0]["hilda"], b"hello"),
            ask(ports[1]["beatrix"], content),
            *(ask(ports[2]["clara"], bytes([97 + number]) * 1_000) for number in range(20)),
        )
        assert answers[0] == b"HELLO"
        assert answers[1] == content.upper()
        assert answers[2:] == [bytes([65 + number]) * 1_000 for number in range(20)]
        with pytest.raises(PeerError) as caught:
            await peers[0].forward(port)
        assert caught.value.code is Reason.IN_USE
        network.end("hilda")
        # The run there has ended: a connection is broken, not answered with nothing.
        with pytest.raises(ConnectionError):
            await ask(ports[0]["hilda"], b"x")
        program.close()
        await program.wait_closed()


async def test_a_stream_that_nobody_reads_can_be_closed(tmp_path: Path) -> None:
    async with (
        algorithms(tmp_path, "clara", "hilda") as (_, (clara, hilda)),
        connected(clara, hilda, "hilda") as (mine, theirs),
    ):
        sending = asyncio.create_task(theirs.write(bytes(32 * MIB)))
        await mine.read()
        while mine._ahead < _AHEAD:  # as much as is taken without a reader
            await mine._change()
        async with asyncio.timeout(30):
            await mine.close()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
