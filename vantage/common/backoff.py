"""Exponential back-off with full jitter.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter").
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Delays between attempts: uniform in [0, min(cap, base * 2^n)].

    Attributes:
        base: upper bound of the first delay, seconds.
        cap: upper bound of any delay, seconds.
    """

    base: float = 0.2
    cap: float = 30.0
    random: random.Random = field(default_factory=random.SystemRandom, repr=False)
    _attempt: int = field(default=0, init=False)

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        ceiling = min(self.cap, self.base * 2.0 ** min(self._attempt, 60))
        self._attempt += 1
        return self.random.uniform(0.0, ceiling)

    def reset(self) -> None:
        """Call after a stable period: the next delay is short again."""
        self._attempt = 0
