"""A run under way, as the node's loop holds it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.node.orders import GivenOrder


@dataclass
class Active:
    """A run under way.

    Attributes:
        stop: why it is being stopped: a reason to report, or None when nothing is to be said.
        waiting: whether a person has to decide before it goes on, and nothing of it runs meanwhile.
        left: whether what there is of it stays, for the process after this one.
        given: the order that was taken for it, if it has one.
        subtask: whether another run asked for it, and waits for it.
        begun: whether it has room, and its algorithm runs or is about to.
        answered: whether the algorithm has answered: what happens from then on, happens to its answer.
        requester: who asks, or asked the one who asks.
        phase: what is being done, for the node's admin.
        since: when that began, by ``time.monotonic``.
    """

    lease: pb.Lease
    task: asyncio.Task[None] | None = None
    stopping: bool = False
    stop: str | None = None
    waiting: bool = False
    left: bool = False
    given: GivenOrder | None = None
    subtask: bool = False
    begun: bool = False
    answered: bool = False
    requester: str = ""
    phase: str = "checked"
    since: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """There is room for it."""
        self.begun = True
        self.enter("running")

    def enter(self, phase: str) -> None:
        """Something else is being done from now on."""
        self.phase, self.since = phase, time.monotonic()
