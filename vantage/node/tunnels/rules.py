"""What the data owner allows of peers: pure rules."""

from __future__ import annotations

from collections.abc import Sequence

from vantage.common.errors import Reason, VantageError, error
from vantage.common.orders import VerifiedOrder
from vantage.node.config import PolicySection


def refusal_of(policy: PolicySection, node: str, organization: str) -> VantageError | None:
    """Why runs here may not talk to runs of an organization; None when they may."""
    allowed = policy.peers
    if allowed is True or (not isinstance(allowed, bool) and organization in allowed):
        return None
    whom = organization if allowed else "other nodes"
    return error(
        Reason.PEERS_REFUSED,
        f"the policy of {node} does not let algorithms talk to {whom}: ask its admin (policy.peers)",
    )


def stranger(order: VerifiedOrder | None, organization: str) -> VantageError | None:
    """Why a run may not talk to one of an organization that nobody has asked; None when it was asked.

    Which runs are of a job is the server's word. Whom the one who asks means is signed; without an order, nothing is.
    """
    if order is None or organization in order.members:
        return None
    return error(
        Reason.PEERS_REFUSED,
        f"the signed order asks nothing of {organization}, so that it is no peer, whatever the server says",
    )


def short(organization: str) -> str:
    """``clara`` for ``organizations/clara``."""
    return organization.removeprefix("organizations/")


def choose(wanted: str, candidates: Sequence[tuple[str, str, str, bool]]) -> str:
    """The run that an algorithm means.

    Args:
        wanted: organization, node or run, as in ``PeerTarget``.
        candidates: (run, organization, node, same task) of the other runs of the job, those that ended left out unless
            named by their run.

    Raises:
        VantageError: NOT_FOUND, or INVALID_ARGUMENT when several could be meant.
    """
    found = [
        (run, same)
        for run, organization, node, same in candidates
        if wanted in (run, organization, short(organization), node) and wanted
    ]
    # The runs of one task are the usual peers: they come first, then the rest of the job.
    for group in ([run for run, same in found if same], [run for run, same in found if not same]):
        if len(group) == 1:
            return group[0]
        if group:
            raise error(Reason.INVALID_ARGUMENT, f"{wanted!r} has several runs in this job: name one", field="peer")
    known = ", ".join(sorted({short(each[1]) for each in candidates})) or "nobody"
    raise error(Reason.NOT_FOUND, f"{wanted[:200]!r} has no other run in this job; there are: {known}")
