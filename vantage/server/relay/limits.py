"""What a relay allows, and what it has done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


class RelayLimits(BaseModel):
    """Limits of one relay; rates are bytes per second, 0 for none; that of a pair counts for each direction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_pairs: int = Field(default=4_000, ge=1)
    max_pairs_per_job: int = Field(default=1_000, ge=1)
    rate_per_pair: int = Field(default=0, ge=0)
    rate_per_job: int = Field(default=0, ge=0)
    pair_seconds: float = Field(default=10.0, gt=0)
    """How long one side waits for the other, told at the same time; when it does not come, they try anew."""
    drain_seconds: float = Field(default=30.0, ge=0)
    """How long pairs may go on when the relay is asked to stop; nodes then continue over another relay."""


@dataclass
class RelayCounters:
    """What a relay has done since it started."""

    pairs: int = 0
    waiting: int = 0
    total_pairs: int = 0
    total_bytes: int = 0
    total_refused: int = 0


class Rate:
    """A token bucket of one second: whoever sends more waits.

    Args:
        rate: bytes per second; 0 for no limit.
        time: seconds that only grow.
    """

    def __init__(self, rate: int, time: Callable[[], float]) -> None:
        self._rate = rate
        self._time = time
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        """Wait until so many bytes may pass."""
        if not self._rate:
            return
        now = self._time()
        # A second's worth may pass at once.
        self._free_at = max(self._free_at, now - 1.0) + size / self._rate
        if (delay := self._free_at - now) > 0:
            await asyncio.sleep(delay)
