"""What runs are connected with besides their peers: the services of their datasets, and hosts that the policy lists."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.node.v1 import node_session_service_pb2 as node_pb
from vantage.common.errors import Reason, VantageError, error
from vantage.common.hosts import join_host
from vantage.node import tcp
from vantage.node.audit import NodeAudit
from vantage.node.config import NodeConfig
from vantage.node.datasets.asking import Asker
from vantage.node.datasets.credentials import hand_over
from vantage.node.datasets.sections import DatasetSection
from vantage.node.door import BoundDataset, ByteStream, RunContext
from vantage.node.egress import rules
from vantage.node.egress.tls import NamedTls
from vantage.node.outside import Outside
from vantage.node.threads import to_its_end

log = logging.getLogger(__name__)

MAX_CONNECTIONS_PER_RUN = 10_000
"""Connections that one run may ask for in its life, refused ones included: each leaves a line in the audit log."""


class Services:
    """Connects all runs of a node.

    Args:
        config: datasets, policy, limits.
        audit: each connection is noted, with its bytes, never its content.

    Attributes:
        asker: asks the services.
    """

    def __init__(self, config: NodeConfig, audit: NodeAudit) -> None:
        self.config = config
        self.audit = audit
        self.asker = Asker(config.slots + 1)

    @asynccontextmanager
    async def run(self, lease: node_pb.Lease, context: RunContext, inner: Outside) -> AsyncIterator[Outside]:
        """The outside of a run while it lasts; every connection is closed in the end.

        Args:
            lease: of the run.
            context: its datasets and hosts.
            inner: for targets of other kinds.
        """
        outside = _RunServices(self, lease, context, inner)
        try:
            yield outside
        finally:
            outside.close()

    async def provide(self, lease: node_pb.Lease, context: RunContext, scratch: Callable[[], Path]) -> None:
        """Make what a run is given of its services: files with credentials, and answers to its questions.

        Args:
            lease: of the run.
            context: its datasets.
            scratch: makes the directory of the run, when something is put there.

        Raises:
            VantageError: DATASET_UNAVAILABLE, DATASET_UNSAFE, SCRATCH_UNAVAILABLE, or the answer is too large.
        """
        for bound in context.datasets:
            dataset = self.config.dataset(bound.dataset)
            if dataset is None or not dataset.is_service:
                continue
            scratch()
            try:
                await self._give(lease, dataset, bound)
            except OSError as problem:
                raise error(
                    Reason.SCRATCH_UNAVAILABLE,
                    f"the node cannot store what the run is given: {problem.strerror}: ask its admin to look at the "
                    "disk",
                ) from problem

    def close(self) -> None:
        """Take no more questions; runs end by themselves."""
        self.asker.close()

    async def _give(self, lease: node_pb.Lease, dataset: DatasetSection, bound: BoundDataset) -> None:
        if bound.connection is not None:
            await self._check_role(dataset)
            await to_its_end(hand_over, dataset, bound.source)
        elif bound.question is not None:
            answer = await self.asker.answer(dataset, bound.question, bound.source)
            self.audit.queried(lease, dataset.name, bound.question.query, answer.rows, answer.size)

    async def _check_role(self, dataset: DatasetSection) -> None:
        """Each time: what a role may do changes without the node."""
        rights = await self.asker.rights(dataset)
        if rights.writes:
            log.error("role of a dataset may write", extra={"dataset": dataset.name, "rights": list(rights.writes)})
            raise error(
                Reason.DATASET_UNSAFE,
                f"the role of the dataset {dataset.name} may do more than read, so it is not handed out: ask the "
                "node's admin (vantage node dataset inspect)",
                dataset=dataset.name,
            )


class _RunServices:
    """Keeps ``Outside`` for one run."""

    def __init__(self, services: Services, lease: node_pb.Lease, context: RunContext, inner: Outside) -> None:
        self._services = services
        self._lease = lease
        self._context = context
        self.inner = inner
        self._open: set[_Noted] = set()
        self._opening = 0
        self._asked = 0

    async def dial(self, target: pb.DialTarget) -> ByteStream:
        """See ``RunCallbacks``."""
        match target.WhichOneof("target"):
            case "dataset":
                parameter = target.dataset.parameter
                bound = next((each for each in self._context.datasets if each.parameter == parameter), None)
                what = bound.dataset if bound is not None else parameter[:100]
                return await self._noted(f"dataset:{what}", lambda: self._dataset(parameter, bound))
            case "host":
                host, port = target.host.host, target.host.port
                return await self._noted(join_host(host[:253], port), lambda: self._host(host, port))
        return await self.inner.dial(target)

    def listen(self, label: str) -> AsyncGenerator[pb.ListenResponse, None]:
        """See ``RunCallbacks``."""
        return self.inner.listen(label)

    def peers(self) -> AsyncGenerator[pb.WatchPeersResponse, None]:
        """See ``RunCallbacks``."""
        return self.inner.peers()

    def close(self) -> None:
        """Close what is open."""
        for each in list(self._open):
            each.close()

    async def _noted(self, what: str, dial: Callable[[], Awaitable[_Dialled]]) -> ByteStream:
        """Dial within the limits, and note it. A refusal is noted as well."""
        services, audit = self._services, self._services.audit
        limit = services.config.limits.max_connections
        self._asked += 1
        if self._asked > MAX_CONNECTIONS_PER_RUN or len(self._open) + self._opening >= limit:
            raise error(
                Reason.TOO_MANY_CHANNELS,
                f"a run may have {limit} connections at a time, and {MAX_CONNECTIONS_PER_RUN} in all: close some",
                limit=str(limit),
            )
        self._opening += 1
        try:
            stream, guarded = await dial()
        except VantageError as problem:
            log.info("connection refused", extra={"run": self._lease.run, "reason": problem.reason.name})
            audit.connected(self._lease, what, problem)
            raise
        finally:
            self._opening -= 1
        audit.connected(self._lease, what, None)
        noted = _Noted(stream, guarded, lambda: self._closed(noted, what))
        self._open.add(noted)
        try:
            await audit.settle()  # before the first byte may leave
        except BaseException:
            noted.close()
            raise
        return noted

    def _closed(self, noted: _Noted, what: str) -> None:
        self._open.discard(noted)
        self._services.audit.disconnected(self._lease, what, noted.tcp.sent, noted.tcp.received)

    async def _dataset(self, parameter: str, bound: BoundDataset | None) -> _Dialled:
        dataset = self._services.config.dataset(bound.dataset) if bound is not None else None
        if bound is None or dataset is None:
            raise error(
                Reason.DATASET_NOT_REQUESTED,
                f"the task binds no dataset to {parameter[:100]!r}",
                parameter=parameter[:100],
            )
        if bound.connection is None:
            raise error(
                Reason.DATASET_ACCESS_REFUSED,
                f"the dataset {dataset.name} is handed over as a file: there is nothing to connect to",
                dataset=dataset.name,
            )
        host, port = dataset.address
        try:
            stream = await tcp.connect(await tcp.resolve(host, port), port)
        except (OSError, TimeoutError) as problem:
            log.warning(
                "service of a dataset does not answer",
                extra={"dataset": dataset.name, "problem": str(problem) or type(problem).__name__},
            )
            raise error(
                Reason.DATASET_UNAVAILABLE,
                f"the service of the dataset {dataset.name} does not answer: ask the node's admin",
                dataset=dataset.name,
            ) from None
        return stream, stream

    async def _host(self, host: str, port: int) -> _Dialled:
        config, context = self._services.config, self._context
        rule = rules.rule_for(config.policy, config.identity.name, context.image, context.declared_egress, host, port)
        try:
            addresses = await tcp.resolve(rule.host, port)
            rules.check_addresses(rule, addresses)
            stream = await tcp.connect(addresses, port)
        except (OSError, TimeoutError) as problem:
            raise error(
                Reason.HOST_UNREACHABLE,
                f"{join_host(rule.host, port)} does not answer ({type(problem).__name__})",
                host=rule.host,
            ) from None
        return stream, stream if rule.tls_server_name is None else NamedTls(stream, rule.tls_server_name)


_Dialled = tuple[tcp.TcpStream, ByteStream]
"""The connection, and what the run gets of it."""


class _Noted:
    """Keeps ``ByteStream`` over another; tells when it is closed."""

    def __init__(self, connection: tcp.TcpStream, stream: ByteStream, closed: Callable[[], None]) -> None:
        self.tcp = connection
        self.read = stream.read
        self.write = stream.write
        self.finish = stream.finish
        self._closed: Callable[[], None] | None = closed

    def close(self) -> None:
        """See ``ByteStream``."""
        if (closed := self._closed) is not None:
            self._closed = None
            self.tcp.close()
            closed()
