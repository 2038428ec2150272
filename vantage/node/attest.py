"""The node's word on how a run ended: signed, so that nobody can put another in its place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common.attestation import sign_result
from vantage.common.statements import Content, ResultFailure, ResultStatement
from vantage.node.identity import Identity
from vantage.node.journal import Journal
from vantage.node.orders import order_digest, order_time

Outcome = Literal["succeeded", "failed", "refused"]


class Attestor:
    """Signs statements about runs that carry an order.

    Args:
        identity: gives who signs; it may be renewed.
        journal: knows the orders.
    """

    def __init__(self, identity: Callable[[], Identity], journal: Journal) -> None:
        self._identity = identity
        self._journal = journal

    def statement(
        self,
        lease: pb.Lease,
        outcome: Outcome,
        finished: datetime,
        *,
        result: types_pb2.Payload | None = None,
        failure: types_pb2.Failure | None = None,
    ) -> bytes:
        """The envelope of a statement; empty for a run without an order, about which nothing can be proved."""
        entry = self._journal.entry(lease.lease_id)
        digest = None if entry is None else order_digest(entry.assign.spec)
        if entry is None or digest is None:
            return b""
        identity = self._identity()
        content = reason = None
        if result is not None:
            content = Content(digest=result.digest, size=result.size_bytes, media_type=result.media_type)
        if failure is not None:
            reason = ResultFailure(reason=failure.reason, message=failure.message)
        statement = ResultStatement(
            order=digest,
            run=lease.run,
            node=identity.name,
            outcome=outcome,
            result=content,
            failure=reason,
            # A clock that was set back while the algorithm ran must not make the answer look older than the question.
            finished=max(finished, order_time(entry.assign.spec) or finished),
        )
        return sign_result(statement, identity.key, identity.chain)
