"""A link: everything between two runs, over one connection at a time, that survives the loss of that connection.

Frames are counted on both sides. What was sent stays here until the other side has said that it has it; after a lost
connection each side tells how many frames it has, and the rest is sent again, once, in order. How much stays here is
bounded: whoever wants to send more waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vantage.common.errors import Reason, VantageError, error
from vantage.common.names import new_id
from vantage.node.tunnels import frames
from vantage.node.tunnels.channel import Budget, Channel
from vantage.node.tunnels.frames import Kind, violation
from vantage.node.tunnels.wire import Wire

log = logging.getLogger(__name__)

VERSION = 1
MAX_HELD = 4 * 1024 * 1024
"""Bytes that were sent and not confirmed, or wait to be sent, before a channel has to wait."""
MOST_HELD = 8 * MAX_HELD
"""More than a node ever makes this one hold that confirms what it is sent; answers to its frames do not wait."""
MAX_BATCH = 928 * 1024
"""Bytes that are sealed and handed to the transport at once; one frame more, and sealed, it is one message still."""
_ACK_BYTES = 1024 * 1024
_ACK_FRAMES = 64
"""So much is confirmed at the latest: a confirmation costs as much as a large message."""
_ACK_SHARE = 0.25
"""So much of that is confirmed along with whatever else is sent."""
HELLO_SECONDS = 15.0
FAREWELL_SECONDS = 5.0
"""How long whoever was told that the link ends waits for the other side to close the connection."""
BEAT_SECONDS = 10.0
"""How often something is sent when there is nothing to say."""
SILENCE_SECONDS = 35.0
"""A connection over which nothing comes for so long is lost, whatever it looks like from here."""


@dataclass(frozen=True)
class Parties:
    """What both sides must agree on; each compares what the other says with what it knows itself.

    Job and runs are the server's word. The order is not: runs under one signed order are of one job, whatever the
    server says.

    Attributes:
        pair: id of the link.
        job: ``tasks/{task}`` at the root.
        image: image that runs here, by digest: only the same image is talked to.
        run: the run here.
        peer_run: the run there.
        peer_node: the node there, as its certificate says.
        order: digest of the order at the top, as this node has verified it; empty for an unsigned task.
    """

    pair: str
    job: str
    image: str
    run: str
    peer_run: str
    peer_node: str
    order: str = ""


@dataclass(frozen=True)
class Opening:
    """A channel that the other side opens, with how long it waits for a listener."""

    channel: Channel
    label: str
    timeout: float


class Link:
    """One side of a link.

    Args:
        parties: who talks.
        budget: for the windows of its channels.
        opening: called when the other side opens a channel; answers with ``accept`` or ``refuse``, now or later.
    """

    def __init__(self, parties: Parties, budget: Budget, opening: Callable[[Link, Opening], None]) -> None:
        self.parties = parties
        self.ended = asyncio.Event()
        self.problem: VantageError | None = None
        self.attached = asyncio.Event()
        self.met = False
        self._budget = budget
        self._opening = opening
        self._id = new_id()
        self._peer_id = ""
        self._channels: dict[int, Channel] = {}
        self._last_channel = 0
        self._asked: set[int] = set()
        self._unsent: deque[bytes] = deque()
        self._unconfirmed: deque[bytes] = deque()
        self._confirmed = 0
        self._held = 0
        self._received = 0
        self._unacknowledged = [0, 0]
        self._beat_due = False
        self._heard = 0.0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._said_bye = self._peer_said_bye = False
        self._progress = asyncio.Event()

    # For whoever uses the link.

    @property
    def channels(self) -> int:
        """How many are open."""
        return len(self._channels)

    def open(self, label: str, timeout: float) -> Channel:
        """Ask for a channel; its ``opened`` tells how that went."""
        self._last_channel += 1
        channel = self._channels[self._last_channel] = Channel(self._last_channel, self, self._budget)
        self._asked.add(channel.number)
        if self.problem is not None:
            channel.fail(self.problem)
        else:
            content = {"label": label, "timeout": timeout}
            self.post(frames.encode_object(Kind.OPEN, channel.number, content))
        return channel

    def accept(self, channel: Channel) -> None:
        """A channel that the other side opened is taken."""
        channel.opened.set_result(None)
        self.post(frames.encode(Kind.OPENED, channel.number))

    def refuse(self, channel: Channel, problem: VantageError) -> None:
        """It is not."""
        content = {"reason": problem.reason.name, "message": problem.message}
        self.post(frames.encode_object(Kind.REFUSED, channel.number, content))
        channel.fail(problem)

    async def close(self, seconds: float) -> None:
        """End the link in order: returns when the other side has what was written before, or does not want it.

        A connection that is lost meanwhile is resumed for that. The farewell alone is not worth another connection: the
        server tells the other side that the run has ended.

        Args:
            seconds: how long that may take.
        """
        if self.ended.is_set():
            return
        owed = self._confirmed + len(self._unconfirmed) + len(self._unsent)
        self.post(frames.encode(Kind.BYE))
        self._said_bye = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.ended.is_set() and self._owes(owed):
                    self._progress.clear()
                    await self._progress.wait()
        self.fail(error(Reason.CANCELLED, "the run has ended"))

    def _owes(self, frames_before: int) -> bool:
        if self.attached.is_set():
            return bool(self._unsent or self._unconfirmed)
        return self.met and self._confirmed < frames_before

    def fail(self, problem: VantageError) -> None:
        """Break everything on the link."""
        if self.problem is None:
            self.problem = problem
        for channel in list(self._channels.values()):
            channel.fail(self.problem)
        self._channels.clear()
        self._unsent.clear()
        self._unconfirmed.clear()
        self._room.set()
        self.ended.set()
        self._wake.set()
        self._progress.set()

    # Carrier.

    def post(self, frame: bytes) -> None:
        """See ``Carrier``."""
        if self.ended.is_set() or self._said_bye:
            return
        self._unsent.append(frame)
        self._held += len(frame)
        if self._held >= MAX_HELD:
            self._room.clear()
        self._wake.set()

    async def room(self) -> None:
        """See ``Carrier``."""
        await self._room.wait()

    def forget(self, channel: int) -> None:
        """See ``Carrier``."""
        self._channels.pop(channel, None)
        self._asked.discard(channel)

    # One connection.

    async def carry(self, wire: Wire) -> None:
        """Go on over a connection until it is lost, or the link has ended; the wire is closed then.

        Raises:
            VantageError: the connection is lost; another one may follow, unless the link has ended.
        """
        decoder = frames.Decoder()
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                await wire.send(frames.encode_object(Kind.HELLO, 0, self._hello()))
                pending = await self._meet(wire, decoder)
        except TimeoutError:
            await wire.close()
            raise error(Reason.RELAY_PEER_LOST, "the other node did not say hello in time") from None
        except BaseException:
            await wire.close()
            raise
        self.attached.set()
        self._wake.set()
        writer = asyncio.create_task(self._write(wire), name="link writer")
        reader = asyncio.create_task(self._read(wire, decoder, pending), name="link reader")
        beat = asyncio.create_task(self._beat(), name="link beat")
        tasks = (reader, writer, beat)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()
        finally:
            self.attached.clear()
            self._progress.set()
            # Closing the wire ends both; a write is never cancelled by itself, which would look like a fault.
            await wire.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _hello(self) -> dict[str, Any]:
        parties = self.parties
        return {
            "version": VERSION,
            "pair": parties.pair,
            "job": parties.job,
            "order": parties.order,
            "image": parties.image,
            "run": parties.run,
            "peer_run": parties.peer_run,
            "link": self._id,
            "peer_link": self._peer_id,
            "received": self._received,
        }

    async def _meet(self, wire: Wire, decoder: frames.Decoder) -> list[tuple[Kind, int, bytes]]:
        """Take the other side's hello, go back to what it has not got; returns frames that came with it."""
        found: list[tuple[Kind, int, bytes]] = []
        while not found:
            data = await wire.receive()
            if not data:
                raise error(Reason.RELAY_PEER_LOST, "the other node closed the connection before its hello")
            found.extend(decoder.feed(data))
        kind, _, payload = found.pop(0)
        if kind is not Kind.HELLO:
            raise violation("the first frame must be a hello")
        self._compare(frames.read_object(payload))
        return found

    def _compare(self, hello: dict[str, Any]) -> None:
        parties = self.parties
        for name, expected in (
            ("version", VERSION),
            ("pair", parties.pair),
            ("job", parties.job),
            ("order", parties.order),
            ("run", parties.peer_run),
            ("peer_run", parties.run),
            ("image", parties.image),
        ):
            if hello.get(name) != expected:
                # Whoever paired these two did not do what it said.
                raise error(
                    Reason.CERTIFICATE_UNTRUSTED,
                    f"{parties.peer_node} was connected for another {name.replace('_', ' ')} than this run's: the "
                    "relay or the server pairs wrongly",
                    field=name,
                )
        peer_id, received = str(hello.get("link")), hello.get("received")
        if (self._peer_id and peer_id != self._peer_id) or hello.get("peer_link") not in ("", self._id):
            raise self._unresumable("the other node was restarted")
        if not isinstance(received, int) or not self._confirmed <= received <= self._confirmed + len(self._unconfirmed):
            raise self._unresumable("the two nodes do not have what the other one needs")
        self._peer_id = peer_id
        self.met = True
        self._confirm(received)
        self._unsent.extendleft(reversed(self._unconfirmed))
        self._unconfirmed.clear()

    def _unresumable(self, why: str) -> VantageError:
        problem = error(Reason.PEER_LOST, f"the connection to {self.parties.peer_node} cannot go on: {why}")
        self.fail(problem)
        return problem

    async def _beat(self) -> None:
        """Say something now and then, and notice when the other side does not."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._beat_due = True
            self._wake.set()
            if loop.time() - self._heard > SILENCE_SECONDS:
                raise error(
                    Reason.RELAY_PEER_LOST, f"nothing came from {self.parties.peer_node} for {SILENCE_SECONDS:g} s"
                )

    async def _write(self, wire: Wire) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while True:
                batch, size = [], 0
                # What is sent anyway takes along what would be said soon.
                if self._beat_due or self._owes_ack(_ACK_SHARE if self._unsent else 1):
                    self._beat_due = False
                    self._unacknowledged = [0, 0]
                    batch.append(frames.encode_number(Kind.ACK, 0, self._received))
                # Many small frames leave together: that is what makes small writes cheap.
                while self._unsent and size < MAX_BATCH:
                    frame = self._unsent.popleft()
                    self._unconfirmed.append(frame)
                    batch.append(frame)
                    size += len(frame)
                if not batch:
                    break
                await wire.send(b"".join(batch))
            if self.ended.is_set() and not self._peer_said_bye:
                return

    async def _read(self, wire: Wire, decoder: frames.Decoder, pending: list[tuple[Kind, int, bytes]]) -> None:
        for kind, channel, payload in pending:
            self._take(kind, channel, payload)
        while not self._peer_said_bye:
            data = await wire.receive()
            if not data:
                raise error(Reason.RELAY_PEER_LOST, "the other node closed the connection in the middle")
            self._heard = asyncio.get_running_loop().time()
            for kind, channel, payload in decoder.feed(data):
                self._take(kind, channel, payload)
            if self._owes_ack(1):
                self._wake.set()
        self._beat_due = True
        self.fail(error(Reason.PEER_ENDED, f"the run at {self.parties.peer_node} has ended"))
        # It waits to hear that everything is here, and closes the connection then: closing it here could overtake that.
        with contextlib.suppress(TimeoutError, VantageError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                while await wire.receive():
                    pass

    def _owes_ack(self, share: float) -> bool:
        count, size = self._unacknowledged
        return count >= _ACK_FRAMES * share or size >= _ACK_BYTES * share

    def _take(self, kind: Kind, number: int, payload: bytes) -> None:
        if kind is Kind.ACK:
            self._confirm(frames.read_number(payload))
            return
        if kind is Kind.HELLO:
            raise violation("hello is said once")
        if self._held > MOST_HELD:
            raise violation("it does not confirm what it is sent")
        self._received += 1
        self._unacknowledged[0] += 1
        self._unacknowledged[1] += len(payload)
        if kind is Kind.BYE:
            self._peer_said_bye = True
            return
        if kind is Kind.OPEN:
            self._take_open(number, payload)
            return
        channel = self._channels.get(number)
        if channel is None:
            return  # closed here, while this was under way
        match kind:
            case Kind.DATA:
                channel.take(payload)
            case Kind.CREDIT:
                channel.credit(frames.read_number(payload))
            case Kind.FINISH:
                channel.end()
            case Kind.OPENED:
                if number not in self._asked:
                    raise violation("whoever opens a channel does not take it")
                if not channel.opened.done():
                    channel.opened.set_result(None)
            case Kind.REFUSED | Kind.RESET:
                channel.fail(_problem(frames.read_object(payload)))

    def _take_open(self, number: int, payload: bytes) -> None:
        content = frames.read_object(payload)
        label, timeout = content.get("label"), content.get("timeout")
        if number in self._channels or not isinstance(label, str) or not isinstance(timeout, int | float):
            raise violation("a channel is opened once, with label and timeout")
        if not timeout >= 0:  # also what is no number: no timer could be set to it
            raise violation("nobody waits less than no time")
        channel = self._channels[number] = Channel(number, self, self._budget)
        self._opening(self, Opening(channel, label, timeout))

    def _confirm(self, received: int) -> None:
        if not self._confirmed <= received <= self._confirmed + len(self._unconfirmed):
            raise violation("it confirms what was not sent")
        for _ in range(received - self._confirmed):
            self._held -= len(self._unconfirmed.popleft())
        self._confirmed = received
        self._progress.set()
        if self._held < MAX_HELD:
            self._room.set()


_FROM_PEER = {
    reason.name: reason
    for reason in (
        Reason.PEER_NOT_READY,
        Reason.PEERS_REFUSED,
        Reason.TOO_MANY_CHANNELS,
        Reason.PEER_LOST,
        Reason.PEER_ENDED,
    )
}


def _problem(content: dict[str, Any]) -> VantageError:
    """Why the other side refused or broke a channel; its text is bounded."""
    reason = _FROM_PEER.get(str(content.get("reason")), Reason.PEER_LOST)
    return error(reason, str(content.get("message"))[:500])
