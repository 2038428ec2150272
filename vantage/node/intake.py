"""From an assignment to a run that may start: every check between the server's word and the node's deed."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common.bound_arguments import arguments_of
from vantage.common.errors import Reason, error
from vantage.node.config import NodeConfig
from vantage.node.door import BoundDataset, RunContext
from vantage.node.executor.base import Job, Limits
from vantage.node.orders import GivenOrder, OrderGate
from vantage.node.payloads import Payloads
from vantage.node.policy import decide_call, decide_request, decide_root
from vantage.node.sealed import Sealer
from vantage.node.sources import CodeSource, TrustedCode

CONTAINER_DATA = "/data"


@dataclass(frozen=True)
class Order:
    """A run that passed every check; only ``Intake.prepare`` builds it.

    Attributes:
        assign: what the server sent.
        job: what the executor gets.
        context: what the run is told.
        trusted: code to fetch.
        recipients: to whom the result is sealed; empty for an unsigned task, whose result is not.
    """

    assign: pb.Assign
    job: Job
    context: RunContext
    trusted: TrustedCode
    recipients: tuple[str, ...] = ()


class Intake:
    """Checks assignments against configuration, policy and code.

    Args:
        config: the node's.
        source: decides about code.
        payloads: for arguments by reference.
        gate: decides about signed orders.
        sealer: opens arguments.
        collaborations: those that the node serves now.
    """

    def __init__(
        self,
        config: NodeConfig,
        source: CodeSource,
        payloads: Payloads,
        gate: OrderGate,
        sealer: Sealer,
        collaborations: Callable[[], tuple[str, ...]],
    ) -> None:
        self._config = config
        self._source = source
        self._payloads = payloads
        self._gate = gate
        self._sealer = sealer
        self._collaborations = collaborations
        limits = config.limits
        self._limits = Limits(limits.memory, limits.cpus, limits.pids, limits.scratch)

    async def prepare(self, assign: pb.Assign) -> Order:
        """Check an assignment.

        The order is that of cost and of trust: what was asked and by whom, then whether somebody has signed exactly
        that, then whether the code is trusted, and only then whether its (now trusted) declaration fits the call. An
        order is taken last: what was refused for another reason may be asked again.

        Raises:
            VantageError: the refusal, for the researcher.
        """
        spec = assign.spec
        decide_request(self._config, assign, self._collaborations()).enforce()
        if "@sha256:" not in spec.image:
            raise error(Reason.IMAGE_NOT_BY_DIGEST, "the image must be named by digest: REPOSITORY@sha256:HEX")
        given = self._gate.verify(assign)
        if given is not None:
            decide_root(self._config, given.verified.root_requester).enforce()
        trusted = await self._source.trust(spec.image, spec.function)
        target = spec.targets[0]
        arguments = await self._arguments(target.arguments, given) if target.HasField("arguments") else b"{}"
        decide_call(trusted.declaration, assign, target.arguments.media_type, arguments).enforce()
        if given is not None:
            await self._gate.take(given, assign)
        return Order(
            assign,
            Job(assign.lease.run, assign.lease.lease_id, trusted.code, self._limits),
            self._context(assign, arguments, given),
            trusted,
            () if given is None else given.verified.order.recipients,
        )

    async def _arguments(self, payload: types_pb2.Payload, given: GivenOrder | None) -> bytes:
        content = await self._payloads.read(payload)
        if payload.sealing == types_pb2.SEALING_AGE_V1:
            if given is None:
                # Also where unsigned tasks run: who sealed these has signed what they are for, and the server left it
                # out, perhaps to have them told to somebody else.
                raise error(
                    Reason.ORDER_MISSING,
                    "the arguments are sealed and no order says what they are for: sign the task, or do not seal it",
                )
            return arguments_of(await self._sealer.open(content), given.verified.order.requester)
        if given is not None:
            raise error(
                Reason.SEAL_MISSING,
                "the arguments of a signed task must be sealed to this node's keys: the server can read these",
            )
        return content

    def _context(self, assign: pb.Assign, arguments: bytes, given: GivenOrder | None) -> RunContext:
        spec = assign.spec
        organizations = tuple(assign.organizations)
        if given is not None:
            # Whom the requester means, not whom the server names.
            order = given.verified.order
            delegated = order.delegation.organizations if order.delegation is not None else ()
            organizations = delegated or tuple(each.organization for each in order.targets)
        return RunContext(
            run=assign.lease.run,
            function=spec.function,
            organization=self._config.identity.organization,
            collaboration=spec.collaboration,
            organizations=organizations,
            datasets=tuple(self._bound(each.parameter, each.dataset) for each in spec.targets[0].datasets),
            arguments=arguments or b"{}",
            arguments_media_type=spec.targets[0].arguments.media_type or "application/json",
            max_result_bytes=self._config.limits.max_result_bytes,
            deadline=deadline_of(assign),
            image=spec.image,
            token=secrets.token_urlsafe(32),
            order=given,
        )

    def _bound(self, parameter: str, name: str) -> BoundDataset:
        dataset = self._config.dataset(name)
        if dataset is None:
            raise error(Reason.DATASET_UNKNOWN, f"there is no dataset {name!r}", dataset=name)
        # Two parameters may be bound to the same file: each has a directory of its own.
        boxed = self._config.executor == "docker"
        path = f"{CONTAINER_DATA}/{parameter}/{dataset.path.name}" if boxed else str(dataset.path)
        return BoundDataset(parameter, name, dataset.format, dataset.path, path)


def deadline_of(assign: pb.Assign) -> datetime:
    """When the run is ended."""
    return assign.deadline.ToDatetime(UTC)
