"""When sessions change to unary calls, and back."""

from __future__ import annotations

import pytest

from vantage.node.session import Ending
from vantage.node.transport_choice import RETRY, RETRY_CAP, STABLE, TransportChoice

CUT, STALLED = Ending.CUT, Ending.STALLED


@pytest.mark.parametrize(
    ("endings", "sync"),
    [
        ([CUT, CUT], False),
        ([CUT, CUT, CUT], True),
        ([STALLED], False),
        ([STALLED, STALLED], True),
        ([CUT, STALLED], True),
    ],
)
def test_bad_streams_in_a_row_lead_to_unary_calls(endings: list[Ending], sync: bool) -> None:
    choice = TransportChoice("auto")
    for ending in endings:
        assert not choice.sync
        choice.stream_was_bad(ending, 0)
    assert choice.sync == sync


def test_a_stream_that_lived_makes_bad_ones_forgotten() -> None:
    choice = TransportChoice("auto")
    for _ in range(5):
        choice.stream_was_bad(CUT, 0)
        choice.stream_was_bad(CUT, 0)
        assert not choice.sync
        choice.stream_was_good()


def test_what_matters() -> None:
    choice = TransportChoice("auto")
    assert choice.suspects(CUT, 1)
    assert choice.suspects(STALLED, 1)
    assert not choice.suspects(Ending.TOLD, 1)
    assert not choice.suspects(CUT, STABLE)


def test_a_stream_is_tried_again_ever_more_seldom() -> None:
    choice = TransportChoice("auto")
    choice.stream_was_bad(STALLED, 0)
    now, lasts = 1_000.0, choice.stream_was_bad(STALLED, 1_000)
    periods = []
    for _ in range(8):
        assert lasts is not None
        periods.append(lasts)
        assert (choice.retry_due(now + lasts - 1), choice.sync) == (False, True)
        now += lasts
        assert (choice.retry_due(now), choice.sync) == (True, False)
        lasts = choice.stream_was_bad(CUT, now)  # one is enough
    assert periods == [min(RETRY * 2**number, RETRY_CAP) for number in range(8)]
    assert choice.retry_due(now + RETRY_CAP)
    choice.stream_was_good()
    assert [choice.stream_was_bad(CUT, now) for _ in range(3)] == [None, None, RETRY]


def test_a_session_in_unary_calls_that_is_not_admitted_changes_back() -> None:
    choice = TransportChoice("auto")
    for _ in range(3):
        choice.stream_was_bad(CUT, 0)
    choice.sync_was_refused()
    assert not choice.sync
    assert choice.stream_was_bad(CUT, 0)  # at once


def test_what_the_admin_chose_is_kept() -> None:
    stream, sync = TransportChoice("stream"), TransportChoice("sync")
    assert not stream.suspects(STALLED, 1)
    assert not stream.sync
    assert sync.sync
    assert not sync.retry_due(1e9)
    sync.sync_was_refused()
    assert sync.sync
