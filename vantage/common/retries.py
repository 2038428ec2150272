"""Which causes another attempt may mend: the one table that nodes and the server go by."""

from __future__ import annotations

from vantage.common.errors import Reason

MENDABLE = frozenset(
    {
        Reason.NODE_LOST,
        Reason.EXECUTOR_UNAVAILABLE,
        Reason.REGISTRY_UNAVAILABLE,
        Reason.SCRATCH_UNAVAILABLE,
        Reason.PAYLOAD_STORE_UNAVAILABLE,
        Reason.UNAVAILABLE,
    }
)
"""What is wrong around a run, and may be right a little later or at another node. Never what an algorithm does, what a
node's owner does not allow, or what was asked: that would be the same again."""
