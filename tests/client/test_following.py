"""Following a task over several connections, against a server whose every message the test chooses."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from vantage.api.task.v1 import task_pb2
from vantage.api.task.v1 import task_service_pb2 as pb
from vantage.client import Event, RunChanged, RunFinished, TaskFinished, TaskSnapshot
from vantage.client.caller import Caller
from vantage.client.handles import follow
from vantage.common.errors import NotFoundError, Reason, VantageError, error
from vantage.common.names import new_id

NAME = f"tasks/{new_id()}"
RUN = f"{NAME}/runs/{new_id()}"
LOST = error(Reason.UNAVAILABLE, "lost")


class Scripted:
    """Answers each watch with the next of the scripts; remembers after which event it was asked, and how often left."""

    def __init__(self, *scripts: list[task_pb2.TaskEvent | VantageError]) -> None:
        self.scripts = deque(scripts)
        self.asked: list[int] = []
        self.ended = 0

    async def stream(self, _method: Any, request: pb.WatchTaskRequest) -> AsyncIterator[pb.WatchTaskResponse]:
        self.asked.append(request.after_sequence)
        try:
            for each in self.scripts.popleft():
                if isinstance(each, VantageError):
                    raise each
                yield pb.WatchTaskResponse(event=each)
        finally:
            self.ended += 1


def snapshot(last: int, state: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_ACTIVE) -> task_pb2.TaskEvent:
    task = task_pb2.Task(name=NAME, state=state, last_sequence=last)
    return task_pb2.TaskEvent(sequence=last, snapshot=task_pb2.TaskSnapshot(task=task))


def changed(sequence: int) -> task_pb2.TaskEvent:
    return task_pb2.TaskEvent(sequence=sequence, run_changed=task_pb2.RunChanged(run=task_pb2.Run(name=RUN)))


def ended(sequence: int) -> task_pb2.TaskEvent:
    return task_pb2.TaskEvent(sequence=sequence, run_finished=task_pb2.RunFinished(run=task_pb2.Run(name=RUN)))


def over(sequence: int) -> task_pb2.TaskEvent:
    end = task_pb2.TaskFinished(state=task_pb2.TASK_STATE_SUCCEEDED, succeeded_runs=1)
    return task_pb2.TaskEvent(sequence=sequence, task_finished=end)


async def followed(server: Scripted, after: int = 0) -> list[Event]:
    return [event async for event in follow(cast("Caller", server), NAME, after)]


async def test_events_that_a_snapshot_includes_are_not_taken_for_delivered() -> None:
    server = Scripted(
        [snapshot(1), changed(2), LOST],
        # Attached again after 2; the snapshot includes 3 and 4, but the connection is lost before they come.
        [snapshot(4), LOST],
        [snapshot(4), changed(3), ended(4), over(5)],
    )
    events = await followed(server)
    assert server.asked == [0, 2, 2]
    assert [(type(each), each.sequence) for each in events] == [
        (TaskSnapshot, 1),
        (RunChanged, 2),
        (RunChanged, 3),
        (RunFinished, 4),
        (TaskFinished, 5),
    ]


async def test_a_stream_that_ends_early_is_opened_again_and_one_of_a_task_that_ended_is_not() -> None:
    server = Scripted([snapshot(1)], [snapshot(1), over(2)])
    assert [each.sequence for each in await followed(server)] == [1, 2]
    server = Scripted([snapshot(9, task_pb2.TASK_STATE_FAILED)])
    (only,) = await followed(server)
    assert isinstance(only, TaskSnapshot)


async def test_whoever_stops_following_ends_the_call_at_once() -> None:
    """Not some time later, when what was left behind is collected: the client may be closed before."""
    server = Scripted([snapshot(1), changed(2)])
    events = follow(cast("Caller", server), NAME)
    assert isinstance(await anext(events), TaskSnapshot)
    await events.aclose()
    assert server.ended == 1


async def test_what_another_attempt_cannot_mend_is_raised_at_once() -> None:
    server = Scripted([snapshot(1), error(Reason.NOT_FOUND, "gone")])
    with pytest.raises(NotFoundError):
        await followed(server)
    assert server.asked == [0]
