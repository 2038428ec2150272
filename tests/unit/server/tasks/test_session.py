"""The protocol of a session, without a stream."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vantage.common.errors import Reason, VantageError
from vantage.server.domain.leases import Report
from vantage.server.domain.runs import Lease, RunEvent
from vantage.server.domain.session import (
    Apply,
    Heartbeat,
    Hello,
    NodeMessage,
    Open,
    Progressed,
    Renew,
    Reported,
    SessionState,
    Tell,
    step,
)

LEASE = Lease("tasks/t/runs/a", "1", 1)
HELLO = Hello("1.0.0", "instance", (), (LEASE,), 2)
REPORT = Report(LEASE, RunEvent.SUCCEED)
OPEN = SessionState(True, 0, 2)


def test_each_message_has_its_effect() -> None:
    assert step(SessionState(), HELLO) == (OPEN, Open(HELLO))
    assert step(OPEN, Heartbeat((LEASE,))) == (OPEN, Renew((LEASE,)))
    assert step(OPEN, Reported(7, REPORT)) == (replace(OPEN, sequence=7), Apply(7, REPORT))
    progress = Progressed(LEASE, 0.5, "")
    assert step(OPEN, progress) == (OPEN, Tell(progress))


def test_what_is_sent_again_is_applied_again_and_the_sequence_does_not_go_back() -> None:
    state, effect = step(replace(OPEN, sequence=9), Reported(3, REPORT))
    assert state.sequence == 9
    assert effect == Apply(3, REPORT)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (SessionState(), Heartbeat(())),
        (SessionState(), Reported(1, REPORT)),
        (OPEN, HELLO),
        (OPEN, Reported(0, REPORT)),
        (SessionState(), replace(HELLO, slots=0)),
        (SessionState(), replace(HELLO, slots=1_001)),
        (SessionState(), replace(HELLO, leases=(LEASE,) * 10_001)),
        (OPEN, Heartbeat((LEASE,) * 10_001)),
    ],
)
def test_violations_end_the_session(state: SessionState, message: NodeMessage) -> None:
    with pytest.raises(VantageError) as caught:
        step(state, message)
    assert caught.value.reason is Reason.PROTOCOL_VIOLATION
