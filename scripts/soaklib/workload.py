"""Researchers who ask all the time, follow what they asked, and now and then cancel it."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from scripts.soaklib.world import ORGANIZATIONS
from vantage.client import AsyncClient, AsyncTaskHandle, models
from vantage.common.errors import Reason, UnavailableError, VantageError
from vantage.testing.counted import content
from vantage.testing.processes import RESEARCHER
from vantage.testing.server import PASSWORD
from vantage.testing.station import COLLABORATION, IMAGE

IN_FLIGHT = 3
"""Questions that one researcher has at a time."""
KINDS = {"count": 4, "linger": 4, "large": 1, "padded": 1, "delegate": 2, "cancel": 2}
"""What is asked how often, in relation to one another."""
LOST, CANCELLED = Reason.NODE_LOST.name, Reason.TASK_CANCELLED.name
"""How a run may end without a result: when processes die, and when somebody cancels its task."""


@dataclass
class Asked:
    """A question and what came of it.

    Attributes:
        first: sequence of the snapshot that its events began with.
        sequences: of the kept events that followed, as the watcher got them.
        results: what each organization answered, once it has ended.
    """

    name: str
    kind: str
    key: str
    first: int = 0
    sequences: list[int] = field(default_factory=list)
    results: list[models.Result] | None = None


class Researcher:
    """Asks until told to stop; what is under way then is followed to its end.

    Args:
        address: of the server.
        ledger: file of the executions.
        seed: decides what is asked.
    """

    def __init__(self, address: str, ledger: Path, seed: str) -> None:
        self.asked: list[Asked] = []
        self.problems: list[str] = []
        self.reasons: Counter[str] = Counter()
        self.stopping = asyncio.Event()
        self._client = AsyncClient.connect(address, tls=False)
        self._ledger = str(ledger)
        self._random = Random(seed)  # noqa: S311  # decisions that can be repeated

    async def run(self) -> None:
        """See above."""
        async with self._client as client:
            await self._patiently(lambda: client.auth.login(RESEARCHER, PASSWORD))
            room = asyncio.Semaphore(IN_FLIGHT)
            async with asyncio.TaskGroup() as asking:
                while not self.stopping.is_set():
                    await room.acquire()
                    asking.create_task(self._ask(self._question(), self._random.uniform(0, 2))).add_done_callback(
                        lambda _done: room.release()
                    )

    def _question(self) -> tuple[str, models.Question]:
        (kind,) = self._random.choices(list(KINDS), list(KINDS.values()))
        whom = self._random.sample(ORGANIZATIONS, self._random.choice((1, 1, 2, 3)))
        given: dict[str, Any] = {"ledger": self._ledger, "key": uuid.UUID(int=self._random.getrandbits(128)).hex}
        function = kind
        match kind:
            case "linger":
                given["seconds"] = self._random.uniform(0, 3)
            case "large":
                given["size"] = self._random.randrange(20_000, 3_000_000)
            case "padded":
                given["padding"] = "x" * self._random.randrange(20_000, 1_500_000)
            case "delegate":
                given |= {"whom": self._random.choice(ORGANIZATIONS), "seconds": self._random.uniform(0, 1)}
            case "cancel":
                function = "linger"
                given["seconds"] = 30
        return kind, models.Question(
            image=IMAGE,
            function=function,
            collaboration=COLLABORATION,
            arguments=given,
            organizations=tuple(f"organizations/{each}" for each in whom),
        )

    async def _ask(self, asked: tuple[str, models.Question], delay: float) -> None:
        kind, question = asked
        assert isinstance(question.arguments, dict)
        request_id = str(uuid.uuid4())
        try:
            handle: AsyncTaskHandle = await self._patiently(
                lambda: self._client.tasks.run(
                    question.image,
                    question.function,
                    question.arguments,
                    question.collaboration,
                    question.organizations,
                    request_id=request_id,
                )
            )
            record = Asked(handle.name, kind, question.arguments["key"])
            self.asked.append(record)
            cancelling = asyncio.create_task(self._cancel(handle, delay)) if kind == "cancel" else None
            async for event in handle.events():
                if isinstance(event, models.TaskSnapshot) and not record.first:
                    record.first = event.sequence
                elif event.sequence:
                    record.sequences.append(event.sequence)
            record.results = await self._patiently(handle.results)
            if cancelling is not None:
                await cancelling
            self._check(record, question)
        except VantageError as problem:
            self.problems.append(f"{kind}: the client gave up: {problem}")

    async def _cancel(self, handle: AsyncTaskHandle, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._patiently(handle.cancel)

    def _check(self, record: Asked, question: models.Question) -> None:
        for result in record.results or ():
            if result.failure is not None:
                self.reasons[result.failure.reason] += 1
                if result.failure.reason not in ({LOST, CANCELLED} if record.kind == "cancel" else {LOST}):
                    self.problems.append(f"{record.name}: {record.kind} failed: {result.failure}")
            elif not self._is_right(record, question, result.get()):
                self.problems.append(f"{record.name}: {record.kind} has a wrong result: {str(result.get())[:200]}")
            else:
                self.reasons["right"] += 1

    @staticmethod
    def _is_right(record: Asked, question: models.Question, value: Any) -> bool:
        given = question.arguments
        assert isinstance(given, dict)
        match record.kind:
            case "large":
                return bool(value == content(given["size"]))
            case "padded":
                return bool(value == {"key": record.key, "padding": str(len(given["padding"]))})
            case "delegate":
                # The subtask may have been lost with a node.
                return value in ({"answers": [{"key": f"{record.key}/below"}]}, {"answers": []})
            case _:
                return bool(value == {"key": record.key})

    @staticmethod
    async def _patiently(call: Any) -> Any:
        """The client gives a server up that is away for long; this researcher does not."""
        while True:
            try:
                return await call()
            except UnavailableError as problem:
                if problem.reason is Reason.DEADLINE_EXCEEDED:
                    raise
