"""Which transport the next session takes: streams, and unary calls where streams do not live.

The rule (``server.transport: auto``): a stream counts as bad when it was cut or stalled within a minute, while unary
calls work. Three cuts in a row, or two stalls, or one of each, and sessions travel in unary calls. After ten minutes a
stream is tried again, between two heartbeats; when it is bad as well, the node goes back at once and waits twice as
long before the next, up to six hours. A stream that lives for a minute makes all that forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vantage.node.session import Ending

Setting = Literal["auto", "stream", "sync"]

STABLE = 60.0
"""Seconds after which a stream that is cut was good enough."""
BAD_STREAMS = 3
"""Points after which sessions travel in unary calls."""
RETRY = 600.0
"""Seconds in unary calls before a stream is tried again."""
RETRY_CAP = 6 * 3600.0
_POINTS = {Ending.TOLD: 0, Ending.CUT: 1, Ending.STALLED: 2}


@dataclass
class TransportChoice:
    """What has happened to sessions, and what follows from it. Times are seconds of one monotonic clock.

    Attributes:
        setting: what the configuration says.
        sync: whether the next session travels in unary calls.
    """

    setting: Setting
    sync: bool = field(init=False)
    _bad: int = field(default=0, init=False)
    _retry: float = field(default=RETRY, init=False)
    _retry_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.sync = self.setting == "sync"

    def suspects(self, ending: Ending, lasted: float) -> bool:
        """Whether a session ended so that it matters if unary calls work."""
        return self.setting == "auto" and not self.sync and ending is not Ending.TOLD and lasted < STABLE

    def stream_was_bad(self, ending: Ending, now: float) -> float | None:
        """A stream ended in a way that is suspect, and unary calls work.

        Returns for how many seconds sessions take unary calls from now on; None when they do not yet.
        """
        self._bad += _POINTS[ending]
        if self._bad < BAD_STREAMS:
            return None
        lasts = min(self._retry, RETRY_CAP)
        self._retry *= 2
        self.sync, self._retry_at = True, now + lasts
        return lasts

    def stream_was_good(self) -> None:
        """A stream has lived long enough."""
        self._bad, self._retry = 0, RETRY

    def sync_was_refused(self) -> None:
        """A session in unary calls was never admitted: what hinders it is not the transport."""
        if self.setting == "auto":
            self.sync = False

    def retry_due(self, now: float) -> bool:
        """Whether it is time to try a stream again; once said, the next session is one.

        What was bad before is remembered, so that one bad stream is enough to come back.
        """
        if self.setting != "auto" or not self.sync or now < self._retry_at:
            return False
        self.sync, self._bad = False, BAD_STREAMS - 1
        return True
