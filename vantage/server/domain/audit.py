"""What the audit says of a call, and where the call that is being served keeps it until the change is written."""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

MAX_DETAILS = 4_000
"""Characters of all details of one entry: beyond it they are cut, never the entry."""
_NAME = re.compile(r"[a-z0-9][a-z0-9/._-]{0,199}")


class Verdict(IntEnum):
    """What was decided; the numbers are those of the contract."""

    ALLOWED = 1
    DENIED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision. ``organization`` is that of whoever asked; details never hold content."""

    time: datetime
    event: str
    verdict: Verdict
    reason: str
    principal: str
    organization: str
    target: str
    peer: str
    request_id: str
    details: dict[str, str] = field(default_factory=dict)
    id: int = 0


@dataclass(slots=True)
class Call:
    """A call that may change something, while it is served.

    Attributes:
        with_change: whether the entry is written by the first unit of work that the call commits.
        written: whether the entry is written or will be by a unit that is under way.
    """

    time: datetime
    event: str
    principal: str
    organization: str
    peer: str
    request_id: str
    with_change: bool
    target: str = ""
    details: dict[str, str] = field(default_factory=dict)
    written: bool = False

    def entry(self, verdict: Verdict = Verdict.ALLOWED, reason: str = "") -> Entry:
        """What the audit says of it."""
        return Entry(
            self.time,
            self.event,
            verdict,
            reason,
            self.principal,
            self.organization,
            self.target,
            self.peer,
            self.request_id,
            dict(self.details),
        )


_call: ContextVar[Call | None] = ContextVar("audited_call", default=None)


def current_call() -> Call | None:
    """The call that is being served, when it is one that the audit speaks of."""
    return _call.get()


def set_call(call: Call | None) -> None:
    """For the interceptor."""
    _call.set(call)


def note(target: str = "", **details: str) -> None:
    """Say what the call is about; without a call that is audited nothing happens."""
    call = _call.get()
    if call is None:
        return
    if target and _NAME.fullmatch(target):
        call.target = target
    for key, value in details.items():
        if value and sum(map(len, call.details.values())) < MAX_DETAILS:
            call.details[key] = value[:MAX_DETAILS]
