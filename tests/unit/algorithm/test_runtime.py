"""The entry point as a real process against a scripted node on a unix socket."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from tests.unit.algorithm import local_node
from tests.unit.algorithm.local_node import LocalNode
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common import argument_files


def event(sequence: int, **parts: object) -> task_pb2.TaskEvent:
    return task_pb2.TaskEvent(sequence=sequence, **parts)  # type: ignore[arg-type]


def finished(organization: str, value: object) -> task_pb2.RunFinished:
    payload = types_pb2.Payload(media_type="application/json", inline=json.dumps(value).encode())
    run = task_pb2.Run(organization=f"organizations/{organization}", state=task_pb2.RUN_STATE_SUCCEEDED, result=payload)
    return task_pb2.RunFinished(run=run)


def test_answers_json(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    node = LocalNode("rows", datasets={"df": path})
    assert local_node.run(node, tmp_path) == (0, "")
    assert node.result == ("application/json", b"2")


def test_answers_a_table_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pd.DataFrame({"a": [1, 2]}, index=[7, 8]).to_parquet(path)
    node = LocalNode("table", datasets={"df": path})
    assert local_node.run(node, tmp_path)[0] == 0
    assert node.result is not None
    assert node.result[0] == "application/vnd.apache.arrow.stream"
    assert pa.ipc.open_stream(node.result[1]).read_all().to_pydict() == {"a": [1, 2]}


def test_sends_chunks_of_64_kib(tmp_path: Path) -> None:
    node = LocalNode("big", b'{"size": 200000}')
    assert local_node.run(node, tmp_path)[0] == 0
    assert sum(node.chunks) == 200_002
    assert max(node.chunks) == 64 * 1024


def test_reports_what_the_author_chose(tmp_path: Path) -> None:
    node = LocalNode("fail", b'{"kind": "few"}')
    assert local_node.run(node, tmp_path)[0] == 1
    assert node.failure is not None
    assert node.failure[0] == "TOO_FEW_RECORDS"
    assert node.result is None


def test_other_exceptions_show_only_their_type(tmp_path: Path) -> None:
    node = LocalNode("fail", b'{"kind": "other"}')
    status, errors = local_node.run(node, tmp_path)
    assert status == 1
    assert node.failure == ("ALGORITHM_FAILED", "ValueError in fail: ask the admin of the node for its log")
    assert "patient Jansen" in errors  # the traceback stays at the node


def test_infinity_is_not_serializable(tmp_path: Path) -> None:
    node = LocalNode("fail", b'{"kind": "infinite"}')
    assert local_node.run(node, tmp_path)[0] == 1
    assert node.failure == ("RESULT_NOT_SERIALIZABLE", "result is infinite")


def test_only_declared_functions_are_called(tmp_path: Path) -> None:
    node = LocalNode("undeclared")
    assert local_node.run(node, tmp_path)[0] == 1
    assert node.failure is not None
    assert node.failure[0] == "FUNCTION_UNKNOWN"


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    node = LocalNode("big", b'{"size": "many"}')
    assert local_node.run(node, tmp_path)[0] == 1
    assert node.failure is not None
    assert node.failure[0] == "ARGUMENTS_INVALID"
    assert "many" not in node.failure[1]


def test_a_result_that_the_node_refuses_ends_with_1(tmp_path: Path) -> None:
    node = LocalNode("big", b'{"size": 1}')
    node.refuse_result = True
    status, errors = local_node.run(node, tmp_path)
    assert status == 1
    assert "too large" in errors


def test_starts_without_the_heavy_libraries(tmp_path: Path) -> None:
    node = LocalNode("modules")
    assert local_node.run(node, tmp_path)[0] == 0
    assert node.result == ("application/json", b"[]")


def test_subtask_attaches_again_after_a_broken_stream(tmp_path: Path) -> None:
    node = LocalNode("central", b'{"dataset": "lung"}')
    failed = task_pb2.Run(
        organization="organizations/hilda",
        state=task_pb2.RUN_STATE_REFUSED,
        failure=types_pb2.Failure(reason="POLICY_REFUSED", message="no"),
    )
    node.subtask_streams = [
        [event(1, snapshot=task_pb2.TaskSnapshot()), event(4, run_finished=finished("clara", 12))],
        [
            event(5, run_finished=task_pb2.RunFinished(run=failed)),
            event(6, task_finished=task_pb2.TaskFinished()),
        ],
    ]
    assert local_node.run(node, tmp_path)[0] == 0
    assert node.result is not None
    assert json.loads(node.result[1]) == {"clara": 12, "hilda": "POLICY_REFUSED"}
    first, second = node.subtasks
    assert (first.request_id, second.after_sequence) == (second.request_id, 4)
    assert [each.organization for each in first.targets] == ["organizations/clara", "organizations/hilda"]
    assert first.targets[0].datasets[0].dataset == "lung"
    assert node.progress == [(0.5, "asking")]


def referring(node: LocalNode, organization: str, media_type: str, *chunks: bytes) -> task_pb2.RunFinished:
    """An answer that its event leaves out."""
    run = f"tasks/t/runs/{organization}"
    if chunks:
        node.subtask_results[run] = list(chunks)
    payload = types_pb2.Payload(media_type=media_type, reference=run)
    return task_pb2.RunFinished(
        run=task_pb2.Run(
            name=run, organization=f"organizations/{organization}", state=task_pb2.RUN_STATE_SUCCEEDED, result=payload
        )
    )


def test_large_results_of_a_subtask_are_read_in_pieces(tmp_path: Path) -> None:
    node = LocalNode("central", b'{"dataset": "lung"}')
    node.subtask_streams = [
        [
            event(2, run_finished=referring(node, "clara", "application/json", b'"o', b'ne"')),
            event(3, run_finished=referring(node, "hilda", "application/json")),
            event(4, task_finished=task_pb2.TaskFinished()),
        ]
    ]
    assert local_node.run(node, tmp_path)[0] == 0
    assert node.result is not None
    assert json.loads(node.result[1]) == {"clara": "one", "hilda": "RESULT_UNVERIFIED"}


@pytest.mark.parametrize("files", [True, False])
def test_a_large_result_is_read_again_after_a_broken_stream(tmp_path: Path, files: bool) -> None:
    into = tmp_path / "a" / "b"
    into.mkdir(parents=True)
    node = LocalNode("reports", json.dumps({"into": str(into)} if files else {}).encode())
    node.lost_reads = 1
    clara = event(2, run_finished=referring(node, "clara", "text/csv", b"a,", b"b\n"))
    stranger = event(2, run_finished=referring(node, "../../stranger", "text/csv", b"a"))
    hilda = finished("hilda", 0)
    hilda.run.result.inline, hilda.run.result.media_type = b"c", "text/csv"
    node.subtask_streams = [
        [clara],
        [stranger, clara, event(3, run_finished=hilda), event(4, task_finished=task_pb2.TaskFinished())],
    ]
    assert local_node.run(node, tmp_path)[0] == 0
    assert node.result is not None
    expected = {
        each: ["text/csv", *([f"{each}.csv"] if files else []), text]
        for each, text in (("clara", "a,b\n"), ("hilda", "c"))
    }
    assert json.loads(node.result[1]) == expected
    assert [each.after_sequence for each in node.subtasks] == [0, 0]
    assert sorted(each.name for each in into.iterdir()) == (["clara.csv", "hilda.csv"] if files else [])
    assert not (tmp_path / "stranger.csv").exists()


def test_a_subtask_that_has_ended_already_is_answered_by_its_snapshot(tmp_path: Path) -> None:
    node = LocalNode("central", b'{"dataset": "lung"}')
    ended = task_pb2.Task(
        state=task_pb2.TASK_STATE_SUCCEEDED, runs=[finished("clara", 12).run, finished("hilda", 7).run]
    )
    node.subtask_streams = [[event(6, snapshot=task_pb2.TaskSnapshot(task=ended))]]
    assert local_node.run(node, tmp_path)[0] == 0
    assert node.result is not None
    assert json.loads(node.result[1]) == {"clara": 12, "hilda": 7}


def test_a_subtask_says_how_much_is_enough(tmp_path: Path) -> None:
    node = LocalNode("enough", b'{"quorum": 1, "cancel_rest": true}')
    late = task_pb2.Run(
        organization="organizations/hilda",
        state=task_pb2.RUN_STATE_CANCELLED,
        failure=types_pb2.Failure(reason="QUORUM_REACHED", message="enough"),
    )
    end = task_pb2.Task(state=task_pb2.TASK_STATE_SUCCEEDED, runs=[finished("clara", 12).run, late])
    node.subtask_streams = [[event(6, snapshot=task_pb2.TaskSnapshot(task=end))]]
    assert local_node.run(node, tmp_path)[0] == 0
    assert node.result is not None
    assert json.loads(node.result[1]) == {"clara": 12, "hilda": "QUORUM_REACHED"}
    (asked,) = node.subtasks
    assert (asked.quorum, asked.on_failure) == (1, task_pb2.ON_FAILURE_CANCEL_REST)
    assert asked.max_runtime.ToSeconds() == 2  # whole seconds


def test_a_subtask_that_is_not_allowed_fails_the_function(tmp_path: Path) -> None:
    node = LocalNode("central", b'{"dataset": "lung"}')
    assert local_node.run(node, tmp_path)[0] == 1
    assert node.failure is not None
    assert "too many subtasks" in node.failure[1]


def answers(*organizations: str) -> list[task_pb2.TaskEvent]:
    end = task_pb2.Task(
        state=task_pb2.TASK_STATE_SUCCEEDED,
        runs=[finished(each, number).run for number, each in enumerate(organizations)],
    )
    return [event(6, snapshot=task_pb2.TaskSnapshot(task=end))]


def test_a_subtask_with_files_is_handed_over_before(tmp_path: Path) -> None:
    node = LocalNode("send", b'{"size": 3}')
    node.subtask_streams = [answers("clara", "hilda")]
    assert local_node.run(node, tmp_path) == (0, "")
    ((digest, (media_type, content)),) = node.staged.items()
    (asked,) = node.subtasks
    assert [(each.arguments.digest, each.arguments.size_bytes) for each in asked.targets] == [
        (digest, len(content))
    ] * 2
    assert media_type == asked.targets[0].arguments.media_type == argument_files.MEDIA_TYPE
    unpacked = argument_files.unpack(BytesIO(content), tmp_path, 10_000)
    assert json.loads(unpacked.arguments) == {"text": "xxx"}
    assert [(each.parameter, each.format) for each in unpacked.files] == [("cohort", "arrow"), ("model", "file")]
    assert (tmp_path / "model").read_bytes() == b"weights"


def test_arguments_that_do_not_fit_into_a_question_are_handed_over_before(tmp_path: Path) -> None:
    node = LocalNode("send", b'{"size": 2100000, "files": false}')  # twice that is too much
    node.subtask_streams = [answers("clara", "hilda")]
    assert local_node.run(node, tmp_path) == (0, "")
    ((media_type, content),) = node.staged.values()
    assert (media_type, len(json.loads(content)["text"])) == ("application/json", 2_100_000)
    node = LocalNode("send", b'{"size": 3, "files": false}')
    node.subtask_streams = [answers("clara", "hilda")]
    assert local_node.run(node, tmp_path) == (0, "")
    assert node.staged == {}
    assert node.subtasks[0].targets[1].arguments.inline == b'{"text":"xxx"}'


def test_what_the_node_has_forgotten_is_handed_over_again(tmp_path: Path) -> None:
    node = LocalNode("send")
    node.forget = 2
    node.subtask_streams = [answers("clara", "hilda")]
    assert local_node.run(node, tmp_path) == (0, "")
    assert node.stagings == 3
    assert len({each.request_id for each in node.subtasks}) == 1
    node = LocalNode("send")
    node.forget = 100
    assert local_node.run(node, tmp_path)[0] == 1
    assert node.stagings < 10
    assert node.failure is not None
    assert "stage them" in node.failure[1]


def test_sigterm_ends_it(tmp_path: Path) -> None:
    node = LocalNode("wait")
    with local_node.started(node, tmp_path) as process:
        assert node.progressed.wait(30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM


def test_outside_of_a_node_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vantage.algorithm"], env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "VANTAGE_SOCKET" in done.stderr
