"""Decisions of people, as they are kept: once, for good, and for what they were about."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vantage.common import audit as audit_files
from vantage.common import pki
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, VantageError
from vantage.node.audit import NodeAudit
from vantage.node.journal import Journal
from vantage.node.release import approvals as module
from vantage.node.release.approvals import Approvals, Item, Kind, attempt_of
from vantage.testing.station import assign

MESSAGE = assign()
ATTEMPT = attempt_of(MESSAGE.lease.run, 1)


def item(kind: Kind = "result", digest: str = "sha256:1", attempt: str = ATTEMPT) -> Item:
    return Item(
        id=Item.named(kind, attempt, digest),
        kind=kind,
        attempt=attempt,
        run=MESSAGE.lease.run,
        image="registry.test/a@sha256:1",
        function="f",
        requester="organizations/dora/users/alice",
        collaboration="collaborations/trial",
        datasets=(),
        since=datetime.now(UTC),
        deadline=datetime.now(UTC) + timedelta(hours=1),
        digest=digest,
    )


@asynccontextmanager
async def opened(directory: Path, said: asyncio.Queue[str]) -> AsyncGenerator[Approvals, None]:
    path = directory / "journal.db"
    journal = await Journal.open(path)
    await journal.accept(MESSAGE)
    noted = NodeAudit(directory / "audit.log", pki.create_key(), SystemClock())
    try:
        yield await Approvals.open(journal, path, noted, SystemClock(), said.put_nowait)
    finally:
        await noted.close()
        await journal.close()


async def test_of_two_that_contradict_each_other_the_first_counts(tmp_path: Path) -> None:
    said = asyncio.Queue[str]()
    async with opened(tmp_path, said) as approvals:
        waiting = asyncio.create_task(approvals.wait(item()))
        await said.get()
        decisions = await asyncio.gather(
            approvals.decide(item().id, allow=False, told="no", who="one"),
            approvals.decide(item().id, allow=True, told="", who="two"),
            return_exceptions=True,
        )
        assert [getattr(each, "decision", each.__class__.__name__) for each in decisions] == ["denied", "ConflictError"]
        with pytest.raises(VantageError, match=": no") as caught:
            await waiting
        assert caught.value.reason is Reason.APPROVAL_DENIED
    lines = (tmp_path / "audit.log").read_text()
    assert lines.count('"run.approval"') == 1
    assert audit_files.CHECKPOINT in lines


async def test_a_decision_is_about_these_bytes_of_this_attempt(tmp_path: Path) -> None:
    said = asyncio.Queue[str]()
    async with opened(tmp_path, said) as approvals:
        waiting = asyncio.create_task(approvals.wait(item()))
        await said.get()
        await approvals.decide(item().id, allow=True, told="", who="one")
        await waiting
    async with opened(tmp_path, said) as approvals:
        await approvals.wait(item())  # decided by a former process
        for other in (item(digest="sha256:2"), item("question"), item(attempt=attempt_of(MESSAGE.lease.run, 2))):
            asking = asyncio.create_task(approvals.wait(other))
            assert other.id in await said.get()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert approvals.waiting() == []


async def test_all_who_wait_for_a_decision_hear_of_it_also_when_one_has_gone(tmp_path: Path) -> None:
    said = asyncio.Queue[str]()
    async with opened(tmp_path, said) as approvals:
        first, second, third = (asyncio.create_task(approvals.wait(item("question"), b"the same")) for _ in range(3))
        for _ in range(3):
            await said.get()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert [each.id for each in approvals.waiting()] == [item("question").id]
        await approvals.decide(item("question").id, allow=True, told="", who="one")
        async with asyncio.timeout(10):
            await asyncio.gather(second, third)
        assert approvals.waiting() == []


async def test_who_asks_again_while_somebody_decides_does_not_undo_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = asyncio.Queue[str]()
    async with opened(tmp_path, said) as approvals:
        asking = asyncio.create_task(approvals.wait(item()))
        await said.get()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    async with opened(tmp_path, said) as approvals:  # restarted: the run is about to ask again
        write, begun = approvals._journal.write, asyncio.Event()

        async def telling(unit: Callable[[sqlite3.Connection], object]) -> None:
            begun.set()
            await write(unit)

        monkeypatch.setattr(approvals._journal, "write", telling)
        deciding = asyncio.create_task(approvals.decide(item().id, allow=True, told="", who="one"))
        await begun.wait()
        async with asyncio.timeout(10):
            await asyncio.gather(deciding, approvals.wait(item()))
    async with opened(tmp_path, said) as approvals:
        async with asyncio.timeout(10):
            await approvals.wait(item())


async def test_bytes_that_nobody_asks_about_any_more_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, held = asyncio.Queue[str](), tmp_path / module.DIRECTORY
    begun, let_go = threading.Event(), threading.Event()
    write = module._write_private

    def slow(path: Path, content: bytes) -> Path:
        begun.set()
        let_go.wait(10)
        return write(path, content)

    monkeypatch.setattr(module, "_write_private", slow)
    async with opened(tmp_path, said) as approvals:
        asking = asyncio.create_task(approvals.wait(item("question"), b"secret"))
        await asyncio.to_thread(begun.wait, 10)
        asking.cancel()
        await asyncio.wait({asking}, timeout=0.05)
        let_go.set()
        await asyncio.gather(asking, return_exceptions=True)
        approvals.forget(ATTEMPT)
        assert [*held.iterdir()] == []
        asking = asyncio.create_task(approvals.wait(item("question"), b"secret"))
        await said.get()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    (held / "other").write_text("secret")  # the process died before it knew of it
    async with opened(tmp_path, said):
        assert [each.name for each in held.iterdir()] == [item("question").id]


async def test_what_belongs_to_no_run_is_forgotten_and_never_taken_for_allowed(tmp_path: Path) -> None:
    said = asyncio.Queue[str]()
    stray = item(attempt="tasks/gone/runs/gone#1")
    async with opened(tmp_path, said) as approvals:
        waiting = asyncio.create_task(approvals.wait(stray, b"content"))
        await said.get()
        assert (tmp_path / "approvals" / stray.id).read_bytes() == b"content"
        approvals.forget(stray.attempt)  # it ended: nobody may let it out now
        with pytest.raises(VantageError) as caught:
            await approvals.decide(stray.id, allow=True, told="", who="one")
        assert caught.value.reason is Reason.NOT_FOUND
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        asking = asyncio.create_task(approvals.wait(stray, b"content"))
        await said.get()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    async with opened(tmp_path, said) as approvals:
        assert not (tmp_path / "approvals" / stray.id).exists()
        with pytest.raises(VantageError):
            await approvals.decide(stray.id, allow=True, told="", who="one")
