"""The table of states, and the page that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vantage.api.task.v1 import task_pb2
from vantage.server.domain.runs import (
    DEFAULT_ATTEMPTS,
    MAKERS,
    MAX_ATTEMPTS,
    OPEN,
    TRANSITIONS,
    RunEvent,
    RunState,
    Side,
    next_state,
)
from vantage.server.domain.tasks import OnFailure, Tally, TaskState, early_end, final_state

PAGE = Path(__file__).parents[4] / "docs" / "states.md"


def events_table() -> str:
    lines = ["| event | made by | meaning |", "|---|---|---|"]
    lines += [f"| {event.value} | {MAKERS[event][0].value} | {MAKERS[event][1]} |" for event in RunEvent]
    return "\n".join(lines)


def transitions_table() -> str:
    lines = ["| from | event | to |", "|---|---|---|"]
    lines += [f"| {state.name} | {event.value} | {after.name} |" for (state, event), after in TRANSITIONS.items()]
    return "\n".join(lines)


def test_the_page_shows_the_table() -> None:
    page = PAGE.read_text()
    assert events_table() in page
    assert transitions_table() in page
    assert f"at most {DEFAULT_ATTEMPTS} times, or as often as its task says, up to {MAX_ATTEMPTS}" in page


def test_final_states_are_final_and_open_ones_can_be_ended() -> None:
    for state in RunState:
        possible = {event for event in RunEvent if next_state(state, event) is not None}
        assert bool(possible) == (state in OPEN)
        if state in OPEN:
            assert {RunEvent.CANCEL, RunEvent.EXPIRE} <= possible


def test_only_the_server_queues_assigns_and_expires() -> None:
    for (_state, event), after in TRANSITIONS.items():
        if after in (RunState.QUEUED, RunState.ASSIGNED, RunState.EXPIRED):
            assert MAKERS[event][0] is Side.SERVER
    assert set(MAKERS) == set(RunEvent)


def test_numbers_are_those_of_the_contract() -> None:
    assert {f"RUN_STATE_{state.name}": int(state) for state in RunState} == {
        name: number for name, number in task_pb2.RunState.items() if number
    }
    assert {f"TASK_STATE_{state.name}": int(state) for state in TaskState} == {
        name: number for name, number in task_pb2.TaskState.items() if number
    }


@pytest.mark.parametrize(
    ("open_runs", "unsuccessful", "closing", "state"),
    [
        (1, 0, None, TaskState.ACTIVE),
        (1, 1, TaskState.CANCELLED, TaskState.ACTIVE),
        (0, 0, None, TaskState.SUCCEEDED),
        (0, 1, None, TaskState.FAILED),
        (0, 1, TaskState.CANCELLED, TaskState.CANCELLED),
        (0, 1, TaskState.EXPIRED, TaskState.EXPIRED),
    ],
)
def test_a_task_follows_its_runs(
    open_runs: int, unsuccessful: int, closing: TaskState | None, state: TaskState
) -> None:
    assert final_state(Tally(open_runs, 3, unsuccessful), closing) is state


@pytest.mark.parametrize(
    ("tally", "end", "state"),
    [
        (Tally(1, 2, 0, quorum=2), (TaskState.SUCCEEDED, "QUORUM_REACHED"), TaskState.ACTIVE),
        (Tally(1, 1, 1, quorum=2), None, TaskState.ACTIVE),
        (Tally(1, 0, 2, quorum=2), (TaskState.FAILED, "QUORUM_MISSED"), TaskState.ACTIVE),
        (Tally(0, 2, 1, quorum=2), None, TaskState.SUCCEEDED),
        (Tally(0, 1, 2, quorum=2), None, TaskState.FAILED),
        (Tally(2, 1, 0, quorum=3), None, TaskState.ACTIVE),
        (Tally(1, 1, 1), None, TaskState.ACTIVE),
        (Tally(1, 1, 1, 0, OnFailure.CANCEL_REST), (TaskState.FAILED, "OTHER_RUN_FAILED"), TaskState.ACTIVE),
        (Tally(1, 2, 1, 2, OnFailure.CANCEL_REST), (TaskState.SUCCEEDED, "QUORUM_REACHED"), TaskState.ACTIVE),
        (Tally(2, 1, 1, 2, OnFailure.CANCEL_REST), (TaskState.FAILED, "OTHER_RUN_FAILED"), TaskState.ACTIVE),
        (Tally(1, 2, 0, 0, OnFailure.CANCEL_REST), None, TaskState.ACTIVE),
    ],
)
def test_a_task_ends_early_by_its_rules(tally: Tally, end: tuple[TaskState, str] | None, state: TaskState) -> None:
    found = early_end(tally)
    assert (None if found is None else (found[0], found[1].reason)) == end
    assert final_state(tally, None) is state
