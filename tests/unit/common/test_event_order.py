"""A stream of events that has lost some, or repeats some, is noticed."""

from __future__ import annotations

import pytest

from vantage.api.task.v1 import task_pb2
from vantage.common.errors import Reason, UnavailableError
from vantage.common.event_order import EventOrder


def snapshot(sequence: int) -> task_pb2.TaskEvent:
    return task_pb2.TaskEvent(sequence=sequence, snapshot=task_pb2.TaskSnapshot())


def moved(sequence: int) -> task_pb2.TaskEvent:
    return task_pb2.TaskEvent(sequence=sequence, run_changed=task_pb2.RunChanged())


PROGRESS = task_pb2.TaskEvent(run_progress=task_pb2.RunProgress())


def test_events_follow_the_snapshot_one_by_one() -> None:
    order = EventOrder()
    assert [order.admit(each) for each in (snapshot(2), moved(3), PROGRESS, moved(4))] == [True] * 4
    assert order.last == 4
    # What comes again says nothing new; a later snapshot stands for what it includes.
    assert [order.admit(each) for each in (moved(3), snapshot(2), snapshot(6), moved(5), moved(7))] == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_after_a_known_event_the_snapshot_moves_nothing() -> None:
    order = EventOrder(3)
    assert [order.admit(each) for each in (snapshot(5), moved(3), moved(4), moved(5))] == [True, False, True, True]
    assert EventOrder(3, begun=True).admit(moved(4))


@pytest.mark.parametrize(
    ("before", "event"),
    [([], moved(1)), ([], PROGRESS), ([snapshot(2)], moved(4)), ([snapshot(2), moved(3)], moved(5))],
)
def test_what_is_missing_is_noticed(before: list[task_pb2.TaskEvent], event: task_pb2.TaskEvent) -> None:
    order = EventOrder()
    for each in before:
        order.admit(each)
    known = order.last
    with pytest.raises(UnavailableError) as caught:
        order.admit(event)
    assert caught.value.reason is Reason.UNAVAILABLE
    assert order.last == known
