"""What runs have asked, in the journal's file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.node.journal import Journal
from vantage.node.questions import Questions

RUN = "tasks/t/runs/r"


async def test_what_an_earlier_release_kept_by_run_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = await Journal.open(path)
    await journal.accept(pb.Assign(lease=pb.Lease(run=RUN, lease_id="two", attempt=2)))
    await journal.close()
    asked = task_service_pb2.RunTaskRequest(request_id="1", spec=task_pb2.TaskSpec(function="count"))
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE question (run TEXT NOT NULL, id TEXT NOT NULL, creation BLOB NOT NULL, name TEXT NOT NULL, "
            "answer_key TEXT NOT NULL, PRIMARY KEY (run, id)) STRICT"
        )
        for run in (RUN, "tasks/t/runs/ended"):
            row = (run, "mine", asked.SerializeToString(), "tasks/below", "key")
            database.execute("INSERT INTO question VALUES (?, ?, ?, ?, ?)", row)
    database.close()
    for _ in range(2):  # and once more, when it is mended
        journal = await Journal.open(path)
        questions = await Questions.open(journal, path)
        (question,) = questions.of(f"{RUN}#2").values()
        assert (question.creation, question.name, question.answer_key) == (asked, "tasks/below", "key")
        assert not questions.of("tasks/t/runs/ended")
        await journal.close()
