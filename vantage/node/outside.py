"""What a run can be connected with outside its box: the kinds of targets that its node offers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.common.errors import Reason, VantageError, error
from vantage.node.door import ByteStream


class Outside(Protocol):
    """The outside of one run, while it lasts."""

    async def dial(self, target: pb.DialTarget) -> ByteStream:
        """See ``RunCallbacks``."""
        ...

    def listen(self, label: str) -> AsyncGenerator[pb.ListenResponse, None]:
        """See ``RunCallbacks``."""
        ...

    def peers(self) -> AsyncGenerator[pb.WatchPeersResponse, None]:
        """See ``RunCallbacks``."""
        ...


class NoOutside:
    """Keeps ``Outside`` for a run that may not be connected with anything."""

    async def dial(self, target: pb.DialTarget) -> ByteStream:
        """See ``RunCallbacks``."""
        raise not_offered(target)

    def listen(self, label: str) -> AsyncGenerator[pb.ListenResponse, None]:
        """See ``RunCallbacks``."""
        return _refused()

    def peers(self) -> AsyncGenerator[pb.WatchPeersResponse, None]:
        """See ``RunCallbacks``."""
        return _refused()


async def _refused(nothing: Sequence[Any] = ()) -> AsyncGenerator[Any, None]:
    for each in nothing:  # what makes this a generator
        yield each
    raise peers_refused()


def not_offered(target: pb.DialTarget) -> VantageError:
    """The error for a kind of target that this node does not offer."""
    kind = target.WhichOneof("target")
    if kind in ("peer", "incoming"):
        return peers_refused()
    return error(Reason.UNIMPLEMENTED, f"this node does not offer connections to a target of the kind {kind}")


def peers_refused() -> VantageError:
    """The error of a node whose policy does not allow peers."""
    return error(
        Reason.PEERS_REFUSED,
        "the policy of this node does not let algorithms talk to other nodes: ask its admin (policy.peers)",
    )
