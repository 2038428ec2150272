"""From an assignment to a run that may start: every check between the server's word and the node's deed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common import argument_files
from vantage.common.argument_files import ArgumentFile
from vantage.common.bound_arguments import arguments_of
from vantage.common.data_questions import take_questions
from vantage.common.errors import Reason, error
from vantage.node.argument_bounds import check_bounds
from vantage.node.config import NodeConfig
from vantage.node.datasets.binding import Asked, bind, seen
from vantage.node.door import BoundDataset, RunContext
from vantage.node.egress.rules import allowed_hosts
from vantage.node.executor.base import Job, Limits
from vantage.node.orders import GivenOrder, OrderGate
from vantage.node.payloads import MAX_ARGUMENT_BYTES, Payloads
from vantage.node.policy import JSON, decide_call, decide_request, decide_root
from vantage.node.release.terms import terms_of
from vantage.node.sealed import Sealer
from vantage.node.sources import CodeRequest, CodeSource, TrustedCode


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


@dataclass(frozen=True)
class _Arguments:
    content: bytes
    media_type: str
    files: tuple[ArgumentFile, ...] = ()


class Intake:
    """Checks assignments against configuration, policy and code.

    Args:
        config: the node's.
        source: decides about code.
        payloads: for arguments by reference.
        gate: decides about signed orders.
        sealer: opens arguments.
        collaborations: those that the node serves now.
        directory: of a run, which need not exist yet.
    """

    def __init__(
        self,
        config: NodeConfig,
        source: CodeSource,
        payloads: Payloads,
        gate: OrderGate,
        sealer: Sealer,
        collaborations: Callable[[], tuple[str, ...]],
        directory: Callable[[pb.Lease], Path],
    ) -> None:
        self._config = config
        self._source = source
        self._payloads = payloads
        self._gate = gate
        self._sealer = sealer
        self._collaborations = collaborations
        self._directory = directory
        self._boxed = config.executor == "docker"
        limits = config.limits
        self._limits = Limits(limits.memory, limits.cpus, limits.pids, limits.scratch)

    async def prepare(self, assign: pb.Assign, make_room: Callable[[], Path]) -> Order:
        """Check an assignment.

        Args:
            assign: what the server sent.
            make_room: makes the run's directory, if arguments come with files; the caller removes it.

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
        trusted = await self._source.trust(code_request(assign, given))
        target = spec.targets[0]
        arguments = _Arguments(b"{}", "")
        questions: Mapping[str, Asked] = {}
        if target.HasField("arguments"):
            arguments = await self._arguments(target.arguments, given, make_room)
            content, questions = take_questions(arguments.content)
            arguments = replace(arguments, content=content)
        files = [each.parameter for each in arguments.files]
        gpus = len(self._config.docker.gpus)
        decide_call(trusted.declaration, assign, arguments.media_type, arguments.content, gpus, files).enforce()
        check_bounds(trusted.declaration.function(spec.function), trusted.bounds, arguments.content)
        context = self._context(assign, arguments, questions, given, trusted)
        if given is not None:
            await self._gate.take(given, assign)
        return Order(
            assign,
            Job(
                assign.lease.run,
                assign.lease.lease_id,
                trusted.code,
                self._limits,
                gpus=trusted.declaration.function(spec.function).gpus,
            ),
            context,
            trusted,
            () if given is None else given.verified.order.recipients,
        )

    async def _arguments(
        self, payload: types_pb2.Payload, given: GivenOrder | None, make_room: Callable[[], Path]
    ) -> _Arguments:
        sealed = payload.sealing == types_pb2.SEALING_AGE_V1
        if sealed and given is None:
            # Also where unsigned tasks run: who sealed these has signed what they are for, and the server left it out,
            # perhaps to have them told to somebody else.
            raise error(
                Reason.ORDER_MISSING,
                "the arguments are sealed and no order says what they are for: sign the task, or do not seal it",
            )
        if not sealed and given is not None:
            raise error(
                Reason.SEAL_MISSING,
                "the arguments of a signed task must be sealed to this node's keys: the server can read these",
            )
        requester = None if given is None else given.verified.order.requester
        if payload.media_type == argument_files.MEDIA_TYPE:
            return await self._unpack(payload, requester, await asyncio.to_thread(make_room))
        content = await self._payloads.read(payload)
        if requester is not None:
            content = arguments_of(await self._sealer.open(content), requester)
        return _Arguments(content, payload.media_type)

    async def _unpack(self, payload: types_pb2.Payload, requester: str | None, directory: Path) -> _Arguments:
        sent, files = directory / "arguments", directory / "files"
        limit = self._config.limits.max_input_bytes
        # The archive is a little larger than what is in it.
        await self._payloads.read_to(payload, sent, limit + limit // 64 + MAX_ARGUMENT_BYTES)
        try:
            await asyncio.to_thread(files.mkdir)
            if requester is None:
                unpacked = await asyncio.to_thread(_unpack_plain, sent, files, limit)
            else:
                unpacked = await self._sealer.unpack(sent, requester, files, limit)
            await asyncio.to_thread(sent.unlink)
            for each in unpacked.files:
                each.path.chmod(0o444)  # containers run as somebody else; nobody gets through the directory above
        except OSError as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                f"the node has no room for the arguments: {problem.strerror}: ask its admin to look at the disk",
            ) from problem
        return _Arguments(unpacked.arguments, JSON, unpacked.files)

    def _context(
        self,
        assign: pb.Assign,
        arguments: _Arguments,
        questions: Mapping[str, Asked],
        given: GivenOrder | None,
        trusted: TrustedCode,
    ) -> RunContext:
        spec = assign.spec
        if unbound := questions.keys() - {each.parameter for each in spec.targets[0].datasets}:
            raise error(
                Reason.ARGUMENTS_INVALID, f"there is a question, but no dataset, for {', '.join(unbound)[:200]}"
            )
        function = trusted.declaration.function(spec.function)
        directory = self._directory(assign.lease)
        organizations = tuple(assign.organizations)
        if given is not None:
            # Whom the requester means, not whom the server names.
            order = given.verified.order
            delegated = order.delegation.organizations if order.delegation is not None else ()
            organizations = delegated or tuple(each.organization for each in order.targets)
        names = [each.dataset for each in spec.targets[0].datasets]
        terms = terms_of(self._config.policy.release, spec.image.partition("@")[0], spec.function, names)
        limit = self._config.limits.max_result_bytes
        return RunContext(
            run=assign.lease.run,
            function=spec.function,
            organization=self._config.identity.organization,
            collaboration=spec.collaboration,
            organizations=organizations,
            datasets=(
                *(
                    self._bound(each.parameter, each.dataset, questions.get(each.parameter), directory)
                    for each in spec.targets[0].datasets
                ),
                *(self._sent(each) for each in arguments.files),
            ),
            arguments=arguments.content or b"{}",
            arguments_media_type=arguments.media_type or JSON,
            max_result_bytes=limit if terms.max_bytes is None else min(limit, terms.max_bytes),
            deadline=deadline_of(assign),
            image=spec.image,
            token=secrets.token_urlsafe(32),
            order=given,
            attempt=assign.lease.attempt,
            terms=terms,
            declared_egress=function.egress,
            egress=allowed_hosts(self._config.policy, spec.image, function),
        )

    def _bound(self, parameter: str, name: str, asked: Asked | None, directory: Path) -> BoundDataset:
        dataset = self._config.dataset(name)
        if dataset is None:
            raise error(Reason.DATASET_UNKNOWN, f"there is no dataset {name!r}", dataset=name)
        return bind(parameter, dataset, asked, directory, boxed=self._boxed)

    def _sent(self, file: ArgumentFile) -> BoundDataset:
        path = seen(file.parameter, file.path, boxed=self._boxed)
        return BoundDataset(file.parameter, "", file.format, file.path, path)


def _unpack_plain(sent: Path, files: Path, limit: int) -> argument_files.Unpacked:
    with sent.open("rb") as stream:
        return argument_files.unpack(stream, files, limit)


def code_request(assign: pb.Assign, given: GivenOrder | None) -> CodeRequest:
    """Who asks is who signed the order at the top; without an order, whom the server names."""
    spec = assign.spec
    if given is not None:
        user = given.verified.root_requester
        return CodeRequest(spec.image, spec.function, user.partition("/users/")[0], user)
    # A node speaks for a user whom this node cannot see.
    user = assign.creator if assign.creator.startswith("users/") else ""
    return CodeRequest(spec.image, spec.function, assign.creator_organization, user)


def deadline_of(assign: pb.Assign) -> datetime:
    """When the run is ended."""
    return assign.deadline.ToDatetime(UTC)
