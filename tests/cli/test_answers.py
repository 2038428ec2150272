"""Answers on the screen, as JSON, in files; what is shown while they are on their way."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pyarrow
import pytest
from pyarrow import csv, parquet

from vantage.client import (
    Event,
    Failure,
    Result,
    Run,
    RunChanged,
    RunFinished,
    RunLog,
    RunProgress,
    RunState,
    RunWaits,
    Task,
    TaskFinished,
    TaskSnapshot,
    TaskState,
    Wait,
    WaitCause,
)
from vantage.client.cli.answers import show
from vantage.client.cli.output import Output
from vantage.client.cli.progress import Lines, Silent, Transfers, describe, display, follow

TASK = "tasks/0199b2c4-5d1e-7c3a-9f00-1a2b3c4d5e6f"
CLARA = "organizations/clara"
WHEN = datetime(2026, 11, 1, 12, tzinfo=UTC)
TABLE = pyarrow.table({"age": list(range(30)), "text": ["a"] * 30})


def answer(organization: str, value: Any, media_type: str = "application/json") -> Result:
    return Result(f"organizations/{organization}", f"{TASK}/runs/{organization}", RunState.SUCCEEDED, value, None)


REFUSED = Result(
    "organizations/hilda",
    f"{TASK}/runs/hilda",
    RunState.REFUSED,
    None,
    Failure("POLICY_REFUSED", "not here\x1b[2J"),
)


def ended(
    *results: Result, form: str = "table", save: Path | None = None, state: str = "SUCCEEDED", quorum: int = 0
) -> int:
    try:
        show(Output(form), TASK, state, results, save, quorum=quorum)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0


def test_one_answer_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(answer("clara", {"mean": 1.5})) == 0
    assert json.loads(capsys.readouterr().out) == {"mean": 1.5}


def test_several_are_told_apart_and_a_missing_one_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"column": "age", "mean": 62.4}, {"column": "meal", "mean": 900}]
    assert ended(answer("clara", records), REFUSED, state="FAILED") == 1
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()[:4]] == [
        ["clara:"],
        ["column", "mean"],
        ["age", "62.4"],
        ["meal", "900"],
    ]
    assert out.splitlines()[4] == "hilda: refused: not here�[2J [POLICY_REFUSED]"
    assert "Error: no answer from hilda" in err


def test_as_many_answers_as_were_asked_for_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(answer("clara", 1), answer("dora", 2), REFUSED, quorum=2) == 0
    out, err = capsys.readouterr()
    assert "hilda: refused" in out
    assert "2 of 3 have answered; the task asks for 2" in err
    # Whatever the server calls the end of the task: what counts is what is here.
    assert ended(answer("clara", 1), REFUSED, quorum=2) == 1
    assert ended(answer("clara", 1), REFUSED) == 1
    assert ended(answer("clara", 1), answer("dora", 2), quorum=2, state="EXPIRED") == 1


@pytest.mark.parametrize(
    ("wait", "told"),
    [
        (Wait(WaitCause.NODE_OFFLINE, (f"{CLARA}/nodes/clara-1",), WHEN), "waits for clara-1, last seen "),
        (Wait(WaitCause.NODE_OFFLINE, (f"{CLARA}/nodes/clara-1",)), "waits for clara-1, which has never connected"),
        (Wait(WaitCause.NODE_BUSY, (f"{CLARA}/nodes/a", f"{CLARA}/nodes/b")), "waits for room at a, b"),
        (Wait(WaitCause.NO_NODE), "waits: there is no node that may take it"),
        (Wait(WaitCause.RETRY), "waits after REGISTRY_UNAVAILABLE, tried again at "),
        (Wait(WaitCause.UNKNOWN), "waits"),
        (None, "waits: no node that can take it is connected"),
    ],
)
def test_for_whom_a_run_waits_is_said(wait: Wait | None, told: str) -> None:
    failure = Failure("REGISTRY_UNAVAILABLE", "down")
    run = Run(f"{TASK}/runs/1", CLARA, wait=wait, last_failure=failure, retry_time=WHEN)
    found = describe(run)
    assert found.startswith(told)
    assert ("2026-11-01" in found) == told.endswith(" ")


def test_json_has_every_answer_and_every_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(answer("clara", TABLE), REFUSED, form="json", state="FAILED") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["task"], document["state"]) == (TASK, "FAILED")
    clara, hilda = document["results"]
    assert clara["value"] == TABLE.to_pylist()
    assert hilda["failure"] == {"reason": "POLICY_REFUSED", "message": "not here\x1b[2J", "metadata": {}}


def test_a_long_table_is_cut_on_the_screen_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(answer("clara", TABLE)) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 21
    assert "10 more rows: --save FILE keeps all 30" in err
    for path, read in (
        (tmp_path / "a.parquet", parquet.read_table),
        (tmp_path / "a.csv", csv.read_csv),
        (tmp_path / "a.arrow", lambda path: pyarrow.ipc.open_file(path).read_all()),
    ):
        assert ended(answer("clara", TABLE), save=path) == 0
        assert read(path).to_pylist() == TABLE.to_pylist()


def test_several_answers_are_saved_in_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "answers"
    assert ended(answer("clara", TABLE), answer("beatrix", b"\x00\x01"), answer("dora", [1]), REFUSED, save=target) == 1
    assert {path.name for path in target.iterdir()} == {"clara.arrow", "beatrix.bin", "dora.json"}
    assert (target / "beatrix.bin").read_bytes() == b"\x00\x01"
    assert json.loads((target / "dora.json").read_text()) == [1]
    assert str(target / "dora.json") in capsys.readouterr().out
    (tmp_path / "file").write_text("mine")
    with pytest.raises(click.UsageError, match="name a directory"):
        ended(answer("clara", 1), answer("beatrix", 2), save=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def events() -> list[Event]:
    when = datetime(2026, 11, 1, tzinfo=UTC)
    clara = Run(f"{TASK}/runs/1", "organizations/clara")
    task = Task(TASK, "", "", "", "", (), TaskState.ACTIVE, "", None, None, None, (clara,))
    running = Run(clara.name, clara.organization, state=RunState.RUNNING, node_online=True)
    failed = Run(clara.name, clara.organization, state=RunState.FAILED, failure=Failure("NO_RESULT", "none"))
    return [
        TaskSnapshot(1, when, task),
        RunChanged(2, when, running),
        RunChanged(3, when, running),
        *(RunProgress(0, when, clara.name, clara.organization, step / 100, "step") for step in range(101)),
        RunLog(0, when, clara.name, clara.organization, ("hello\x1b[2J",), 3),
        RunFinished(4, when, failed),
        TaskFinished(5, when, TaskState.FAILED, 0, 1),
    ]


def test_news_of_whom_a_run_waits_for_are_shown_while_it_waits(capsys: pytest.CaptureFixture[str]) -> None:
    snapshot, running, *_rest = events()
    name = f"{TASK}/runs/1"
    gone = RunWaits(0, WHEN, name, CLARA, Wait(WaitCause.NODE_OFFLINE, (f"{CLARA}/nodes/clara-1",)))
    back = RunWaits(0, WHEN, name, CLARA, Wait(WaitCause.NODE_BUSY, (f"{CLARA}/nodes/clara-1",)))
    follow([snapshot, gone, back, running, gone], Lines(), logs=False)
    assert capsys.readouterr().err.splitlines() == [
        "clara: waits: no node that can take it is connected",
        "clara: waits for clara-1, which has never connected",
        "clara: waits for room at clara-1",
        "clara: running",
    ]


def test_lines_tell_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    follow(events(), Lines(), logs=False)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[:2] == ["clara: waits: no node that can take it is connected", "clara: running"]
    assert lines[-1] == "clara: failed: NO_RESULT"
    assert 10 <= sum("% step" in line for line in lines) <= 12
    assert not any("hello" in line for line in lines)


def test_log_lines_are_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    follow(events(), Silent(), logs=True)
    assert capsys.readouterr().err.splitlines() == ["clara | (3 lines were left out)", "clara | hello�[2J"]


def test_bars_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with display(Output(), quiet=False) as shown:
        follow(events(), shown, logs=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "failed: NO_RESULT" in err
    assert "clara | hello�[2J" in err


def test_transfers_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    transfers = Transfers(enabled=True)
    transfers("upload", 1, 2)  # not shown: nothing is on display
    with transfers.shown():
        for done in (1_000_000, 2_000_000):
            transfers("download", done, 2_000_000)
    assert "2.0/2.0 MB" in capsys.readouterr().err
    with Transfers(enabled=False).shown():
        pass
    assert capsys.readouterr().err == ""


def test_programs_see_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    for output, quiet in ((Output("json"), False), (Output(), True)):
        with display(output, quiet=quiet) as shown:
            follow(events(), shown, logs=False)
    assert capsys.readouterr() == ("", "")
