"""What a handle makes of events that a server should not send."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import cast

from vantage.api.task.v1 import task_pb2
from vantage.client import RunWaits, TaskFinished, TaskSnapshot, TaskState, converters
from vantage.client.caller import Caller
from vantage.client.codec import Codec
from vantage.client.handles import AsyncTaskHandle


async def test_news_of_a_run_that_is_not_the_tasks_end_nothing() -> None:
    async def stream() -> AsyncGenerator[task_pb2.TaskEvent, None]:
        yield task_pb2.TaskEvent(run_waits=task_pb2.RunWaits(run="tasks/1/runs/other"))
        finished = task_pb2.TaskFinished(state=task_pb2.TASK_STATE_SUCCEEDED)
        yield task_pb2.TaskEvent(sequence=2, task_finished=finished)

    task = converters.task(task_pb2.Task(name="tasks/1", state=task_pb2.TASK_STATE_ACTIVE, last_sequence=1))
    handle = AsyncTaskHandle(cast(Caller, None), cast(Codec, None), task, stream=stream())
    assert [type(event) async for event in handle.events()] == [TaskSnapshot, RunWaits, TaskFinished]
    assert handle.state is TaskState.SUCCEEDED
