from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.errors import ConfigurationError
from vantage.common.names import new_id
from vantage.node.journal import Journal


def assignment() -> pb.Assign:
    return pb.Assign(lease=pb.Lease(run=f"tasks/{new_id()}/runs/{new_id()}", lease_id=new_id(), attempt=1))


def completed(assign: pb.Assign) -> pb.ConnectRequest:
    return pb.ConnectRequest(completed=pb.Completed(lease=assign.lease))


async def test_what_is_accepted_is_on_disk_before_accept_returns(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    assign = assignment()
    assert await journal.accept(assign)
    assert not await journal.accept(assign)
    with sqlite3.connect(tmp_path / "journal.db") as other:
        assert other.execute("SELECT lease_id, started FROM assignment").fetchall() == [(assign.lease.lease_id, 0)]
    other.close()
    await journal.close()


async def test_an_outcome_is_kept_with_its_sequence_until_it_is_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = await Journal.open(path)
    assign = assignment()
    await journal.accept(assign)
    await journal.finish(assign.lease.lease_id, completed(assign))
    (message,) = journal.unsent(0)
    await journal.close()

    journal = await Journal.open(path)
    assert list(journal.unsent(0)) == [message]
    assert journal.leases() == [assign.lease]
    assert journal.unfinished() == []
    settled = asyncio.create_task(journal.wait_settled())
    journal.acknowledge(message.sequence - 1)
    await asyncio.sleep(0)
    assert not settled.done()
    journal.acknowledge(message.sequence)
    await settled
    await journal.close()

    journal = await Journal.open(path)
    assert journal.settled
    await journal.close()


async def test_only_the_first_end_of_a_run_counts(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    assign = assignment()
    await journal.accept(assign)
    cancelled = pb.ConnectRequest(completed=pb.Completed(lease=assign.lease, cancelled=pb.Cancelled(reason="X")))
    await asyncio.gather(
        journal.finish(assign.lease.lease_id, completed(assign)), journal.finish(assign.lease.lease_id, cancelled)
    )
    (message,) = journal.unsent(0)
    assert not message.completed.HasField("cancelled")
    await journal.close()


async def test_messages_are_numbered_in_the_order_in_which_they_are_sent(tmp_path: Path) -> None:
    """What was said while another message was being written must not be overtaken: acknowledgements are cumulative."""
    journal = await Journal.open(tmp_path / "journal.db")
    slow, quick = assignment(), assignment()
    await journal.accept(slow)
    await journal.accept(quick)
    writing = asyncio.create_task(journal.finish(slow.lease.lease_id, completed(slow)))
    await asyncio.sleep(0)  # numbered, not committed
    journal.say(quick.lease.lease_id, pb.ConnectRequest(accepted=pb.Accepted(lease=quick.lease)))
    early = [message.sequence for message in journal.unsent(0)]
    journal.acknowledge(early[0])
    await writing
    (late,) = journal.unsent(early[0])
    assert late.completed.lease == slow.lease
    await journal.close()


async def test_sequences_of_a_process_lie_above_those_of_all_before(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        journal = await Journal.open(tmp_path / "journal.db")
        message = pb.ConnectRequest()
        journal.say("x", message)
        seen.append(message.sequence)
        await journal.close()
    assert seen == sorted(set(seen))


async def test_a_dropped_run_is_forgotten_also_while_its_end_is_written(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    assign = assignment()
    await journal.accept(assign)
    writing = asyncio.create_task(journal.finish(assign.lease.lease_id, completed(assign)))
    await asyncio.sleep(0)
    journal.drop(assign.lease.lease_id)
    await writing
    assert list(journal.unsent(0)) == []
    assert journal.settled
    await journal.close()
    journal = await Journal.open(tmp_path / "journal.db")
    assert journal.settled
    await journal.close()


async def test_whether_a_run_may_have_begun_is_remembered(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    begun, waiting = assignment(), assignment()
    await journal.accept(begun)
    await journal.accept(waiting)
    journal.mark_started(begun.lease.lease_id)
    await journal.close()
    journal = await Journal.open(tmp_path / "journal.db")
    assert {entry.assign.lease.lease_id: entry.started for entry in journal.unfinished()} == {
        begun.lease.lease_id: True,
        waiting.lease.lease_id: False,
    }
    await journal.close()


async def test_an_outcome_that_cannot_be_written_is_said_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = await Journal.open(path)
    assign = assignment()
    await journal.accept(assign)
    other = sqlite3.connect(path)
    other.execute("DROP TABLE outgoing")  # stands for a disk that is full: the write fails, the node goes on
    other.close()
    await journal.finish(assign.lease.lease_id, completed(assign))
    assert len(list(journal.unsent(0))) == 1
    await journal.close()


@pytest.mark.parametrize("content", [b"not a database" * 100, None])
async def test_a_journal_that_is_not_one_is_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "journal.db"
    if content is None:
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"journal\.db"):
        await Journal.open(path)


async def test_in_a_hurry_it_leaves_out_what_a_later_message_implies(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    kinds: dict[str, list[str]] = {}
    for end in ("result", "failure", "none") * 3:
        assign = assignment()
        lease, name = assign.lease, f"{end} {assign.lease.lease_id}"
        kinds[lease.lease_id] = [name]
        await journal.accept(assign)
        journal.say(lease.lease_id, pb.ConnectRequest(accepted=pb.Accepted(lease=lease)))
        journal.say(lease.lease_id, pb.ConnectRequest(started=pb.Started(lease=lease)))
        message = completed(assign)
        if end != "none":
            getattr(message.completed, end).SetInParent()
            await journal.finish(lease.lease_id, message)
    for message in journal.unsent(0):
        kind = str(message.WhichOneof("message"))
        kinds[getattr(message, kind).lease.lease_id].append(kind)
    expected = {"result": ["completed"], "failure": ["started", "completed"], "none": ["started"]}
    for name, *said in kinds.values():
        assert said == expected[name.split()[0]]
    assert len(list(journal.unsent(0))) == 3 * 4  # what was left out is not sent later either
    await journal.close()


async def test_with_time_it_says_everything(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    assign = assignment()
    await journal.accept(assign)
    journal.say(assign.lease.lease_id, pb.ConnectRequest(accepted=pb.Accepted(lease=assign.lease)))
    journal.say(assign.lease.lease_id, pb.ConnectRequest(started=pb.Started(lease=assign.lease)))
    await journal.finish(assign.lease.lease_id, completed(assign))
    kinds = [message.WhichOneof("message") for message in journal.unsent(0)]
    assert kinds == ["accepted", "started", "completed"]
    await journal.close()


async def test_a_mistake_in_a_unit_of_work_reaches_who_waits_and_nobody_after(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(20):
            await journal.write(lambda _database: 1 / 0)
    assign = assignment()
    async with asyncio.timeout(20):
        await journal.accept(assign)
    await journal.close()
    again = await Journal.open(tmp_path / "journal.db")
    assert again.entry(assign.lease.lease_id) is not None
    await again.close()
