"""A run that is cancelled while a thread writes for it ends after the thread: its files are removed then."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.node.test_subtasks import context
from vantage.common.clock import SystemClock
from vantage.node import services as services_module
from vantage.node.datasets import sparql
from vantage.node.datasets.asking import Asker
from vantage.node.datasets.sections import DatasetSection
from vantage.node.door import BoundDataset, Question, ServiceConnection, StoredResult
from vantage.node.intake import Order
from vantage.node.release.consent import Consent
from vantage.node.release.examiner import Examiner
from vantage.node.release.looking import Look
from vantage.node.release.terms import Terms
from vantage.node.services import Services
from vantage.testing.station import assign

Patch = pytest.MonkeyPatch
RESULT = StoredResult("application/json", b"1", 1, "sha256:1")


class Slow:
    """Work on a thread that lasts until it is let go."""

    def __init__(self, directory: Path) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()
        self._directory = directory

    def __call__(self, *_: object) -> Path:
        self.begun.set()
        self.let_go.wait(10)
        return self._directory


async def answer(slow: Slow, patch: Patch, directory: Path) -> None:
    async def ask(*_: object) -> bytes:
        return b""

    patch.setattr(sparql, "ask", ask)
    patch.setattr(sparql, "write", slow)
    graph = DatasetSection.model_validate(
        {"name": "graph", "format": "sparql", "url": "http://graph.test/sparql", "queries": {"all": "SELECT ?a {}"}}
    )
    await Asker(1).answer(graph, Question("all", {}), directory / "data" / "graph.parquet")


async def credentials(slow: Slow, patch: Patch, directory: Path) -> None:
    async def reader(*_: object) -> None:
        pass

    patch.setattr(services_module, "hand_over", slow)
    patch.setattr(Services, "_check_role", reader)
    url = {"url": "postgresql://reader@db.test/registry", "access": "connection"}
    registry = DatasetSection.model_validate({"name": "registry", "format": "postgresql", **url})
    bound = BoundDataset("db", "registry", "postgresql", directory, "", connection=ServiceConnection("", "", "", ""))
    config: Any = SimpleNamespace(slots=1, dataset=lambda _name: registry)
    given = replace(context(), datasets=(bound,))
    await Services(config, SimpleNamespace()).provide(assign().lease, given, lambda: directory)  # type: ignore[arg-type]


async def looking(slow: Slow, _patch: Patch, _directory: Path) -> None:
    await Examiner().examine(Terms(looks=(Look(columns=("$",)),)), RESULT, slow)


async def waiting(slow: Slow, _patch: Patch, _directory: Path) -> None:
    order = Order(assign(), replace(context(), terms=Terms(every_result=True)))
    nobody: Any = None
    await Consent("clara", nobody, SystemClock()).to_leave(order, RESULT, slow, print)


@pytest.mark.parametrize("work", [answer, credentials, looking, waiting])
async def test_nothing_is_written_once_a_run_has_ended(
    tmp_path: Path, monkeypatch: Patch, work: Callable[[Slow, Patch, Path], Awaitable[None]]
) -> None:
    slow = Slow(tmp_path)
    task = asyncio.ensure_future(work(slow, monkeypatch, tmp_path))
    await asyncio.to_thread(slow.begun.wait, 10)
    task.cancel()
    ended, _ = await asyncio.wait({task}, timeout=0.05)
    slow.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended
