"""A researcher of another organization who signs and seals what a scripted server hands to a node."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common import pki, sealing
from vantage.common.bound_arguments import line_of
from vantage.common.clock import SystemClock
from vantage.common.dsse import digest_of
from vantage.common.orders import sign_order
from vantage.common.sealing import SealedPayload
from vantage.common.statements import Content, Delegation, Order, OrderTarget
from vantage.common.trust import TrustStore
from vantage.node.seal_keys import SealKeys
from vantage.node.trust import DIRECTORY
from vantage.testing.station import COLLABORATION, IMAGE, ORGANIZATION, Station, assign

ASKING = "organizations/dora"
REQUESTER = f"{ASKING}/users/alice"


class Asker:
    """Alice of dora, whom the station trusts.

    Attributes:
        identity: her age secret key.
        chain: her certificate.
    """

    def __init__(self, directory: Path, station: Station) -> None:
        authority = pki.CertificateAuthority.create(directory / "dora", ASKING)
        self.key = pki.create_key()
        self.chain = (authority.issue(REQUESTER, self.key.public_key()),)
        self.identity = sealing.create_identity()
        data = station.directory / "data"
        TrustStore(data / DIRECTORY).pin(ASKING, authority.certificate)
        self._station_keys = SealKeys(data, SystemClock())
        station.settings["policy"] = {"allow_unsigned": False, **station.settings.get("policy", {})}

    def ask(
        self,
        function: str = "echo",
        arguments: str = '{"value": 1}',
        *,
        sealed: bool = True,
        sealed_for: str | None = REQUESTER,
        order: Callable[[dict[str, Any]], None] | None = None,
        **changes: Any,
    ) -> pb.Assign:
        """A signed and sealed assignment.

        Args:
            function, arguments: what is asked.
            sealed: whether the arguments are.
            sealed_for: whose order they say that they are for; None for arguments that do not say it.
            order: changes the fields of the order before it is signed.
            changes: for ``assign``.
        """
        message = assign(function, arguments, creator="users/alice", creator_organization=ASKING, **changes)
        payload = message.spec.targets[0].arguments
        if sealed:
            lead = b"" if sealed_for is None else line_of(sealed_for)
            payload.inline = sealing.seal(lead + arguments.encode(), self._station_keys.recipients).content
            payload.sealing = types_pb2.SEALING_AGE_V1
        else:
            payload.sealing = types_pb2.SEALING_NONE
        payload.size_bytes, payload.digest = len(payload.inline), digest_of(payload.inline)
        now = datetime.now(UTC)
        fields: dict[str, Any] = {
            "id": message.lease.run.rpartition("/")[2],
            "requester": REQUESTER,
            "collaboration": COLLABORATION,
            "image": IMAGE,
            "function": function,
            "targets": (
                OrderTarget(
                    organization=ORGANIZATION,
                    arguments=Content(digest=payload.digest, size=payload.size_bytes, media_type=payload.media_type),
                    datasets={each.parameter: each.dataset for each in message.spec.targets[0].datasets},
                ),
            ),
            "recipients": (sealing.recipient_of(self.identity),),
            "created": now,
            "expires": now + timedelta(hours=1),
            "delegation": Delegation(organizations=(ORGANIZATION, ASKING), max_tasks=10, max_depth=2),
        }
        if order is not None:
            order(fields)
        message.spec.order = sign_order(Order.model_validate(fields), self.key, self.chain)
        return message

    def open(self, payload: types_pb2.Payload) -> bytes:
        """A result that was sealed to her."""
        return sealing.unseal(SealedPayload(payload.inline), [self.identity])
