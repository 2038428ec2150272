"""From an assignment to a run that may start: every check between the server's word and the node's deed."""

from __future__ import annotations

import asyncio
import json
import logging
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
from vantage.common.declaration import Function
from vantage.common.errors import Reason, UnavailableError, error
from vantage.node.argument_bounds import check_bounds
from vantage.node.boxes import Box
from vantage.node.config import NodeConfig
from vantage.node.datasets.binding import Asked, bind, seen
from vantage.node.door import BoundDataset, RunContext
from vantage.node.egress.rules import allowed_hosts
from vantage.node.executor.base import Job, Limits
from vantage.node.orders import GivenOrder, OrderGate
from vantage.node.payloads import Payloads
from vantage.node.policy import JSON, decide_call, decide_request, decide_root
from vantage.node.release.terms import terms_of
from vantage.node.sealed import Sealer
from vantage.node.sources import CodeRequest, CodeSource, TrustedCode
from vantage.node.threads import to_its_end

log = logging.getLogger(__name__)

_OPENED = "arguments.json"
"""Last to be written of what is unpacked: when it is there, all is there."""


@dataclass(frozen=True)
class Order:
    """A run that the node has taken on; only ``Intake`` builds it.

    Attributes:
        assign: what the server sent.
        context: what the run is told.
        recipients: to whom the result is sealed; empty for an unsigned task, whose result is not.
    """

    assign: pb.Assign
    context: RunContext
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True)
class Startable:
    """An order that passed every check and has not begun; only ``Intake.prepare`` builds it.

    Attributes:
        order: what was asked.
        job: what the executor gets.
        trusted: code to fetch.
    """

    order: Order
    job: Job
    trusted: TrustedCode


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

    async def prepare(self, assign: pb.Assign, make_room: Callable[[], Path]) -> Startable:
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
        given = self._given(assign)
        trusted = await self._source.trust(code_request(assign, given))
        arguments, questions = await self._asked(assign, given, make_room)
        files = [each.parameter for each in arguments.files]
        gpus = len(self._config.docker.gpus)
        # The numbers are those of the list in images.verifier: 13
        decide_call(trusted.declaration, assign, arguments.media_type, arguments.content, gpus, files).enforce()
        function = trusted.declaration.function(spec.function)
        check_bounds(function, trusted.bounds, arguments.content)  # 14
        order = self._order(assign, arguments, questions, given, function, secrets.token_urlsafe(32))
        if given is not None:
            await self._gate.take(given, assign)
        return Startable(
            order,
            Job(
                assign.lease.run,
                assign.lease.lease_id,
                trusted.code,
                self._limits,
                gpus=function.gpus,
            ),
            trusted,
        )

    async def resume(self, assign: pb.Assign, make_room: Callable[[], Path], box: Box) -> Order:
        """Take up a run that a former process has begun, at once: ``allow_again`` checks the rest beside it.

        Args:
            assign: what the server sent.
            make_room: as in ``prepare``.
            box: its container.

        Raises:
            VantageError: whoever signed it is not trusted any more.
        """
        given = self._given(assign)
        arguments, questions = await self._asked(assign, given, make_room)
        function = Function(assign.spec.function, egress=box.egress)  # what else it declares was checked
        return self._order(assign, arguments, questions, given, function, box.token)

    async def allow_again(self, order: Order) -> None:
        """Check a run that was taken up against what is allowed now: its admin may have restarted the node for that.

        A registry that does not answer forbids nothing, since the image was verified when the run began.

        Raises:
            VantageError: the refusal, for the researcher.
        """
        assign = order.assign
        decide_request(self._config, assign, self._collaborations()).enforce()
        try:
            trusted = await self._source.trust(code_request(assign, order.context.order))
            function = trusted.declaration.function(assign.spec.function)
            check_bounds(function, trusted.bounds, order.context.arguments)
        except UnavailableError as problem:
            log.warning(
                "image of a running container not verified again",
                extra={"run": assign.lease.run, "reason": problem.reason.name},
            )

    def _given(self, assign: pb.Assign) -> GivenOrder | None:
        if "@sha256:" not in assign.spec.image:
            raise error(Reason.IMAGE_NOT_BY_DIGEST, "the image must be named by digest: REPOSITORY@sha256:HEX")
        given = self._gate.verify(assign)
        if given is not None:
            decide_root(self._config, given.verified.root_requester).enforce()
        return given

    def _order(
        self,
        assign: pb.Assign,
        arguments: _Arguments,
        questions: Mapping[str, Asked],
        given: GivenOrder | None,
        function: Function,
        token: str,
    ) -> Order:
        recipients = () if given is None else given.verified.order.recipients
        return Order(assign, self._context(assign, arguments, questions, given, function, token), recipients)

    async def _asked(
        self, assign: pb.Assign, given: GivenOrder | None, make_room: Callable[[], Path]
    ) -> tuple[_Arguments, Mapping[str, Asked]]:
        arguments = await self._arguments(assign, given, make_room)
        content, questions = take_questions(arguments.content)
        return replace(arguments, content=content), questions

    async def _arguments(
        self, assign: pb.Assign, given: GivenOrder | None, make_room: Callable[[], Path]
    ) -> _Arguments:
        target = assign.spec.targets[0]
        if not target.HasField("arguments"):
            return _Arguments(b"{}", "")
        payload = target.arguments
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
            return await self._unpack(payload, requester, await to_its_end(make_room))
        limit = _with_seal(argument_files.MAX_JSON_BYTES)
        if payload.size_bytes > limit:
            argument_files.check_json_size(payload.size_bytes)
        content = await self._payloads.read(payload, limit)
        if requester is not None:
            content = arguments_of(await self._sealer.open(content), requester)
        argument_files.check_json_size(len(content))
        return _Arguments(content, payload.media_type)

    async def _unpack(self, payload: types_pb2.Payload, requester: str | None, directory: Path) -> _Arguments:
        opened = directory / "opened"
        if (known := await asyncio.to_thread(_read_opened, opened)) is not None:
            return known  # a former process has unpacked them, and a container sees these very files
        sent, files = directory / "arguments", opened / "files"
        limit = self._config.limits.max_input_bytes
        await self._payloads.read_to(payload, sent, _with_seal(limit + argument_files.MAX_JSON_BYTES))
        try:
            await to_its_end(files.mkdir, parents=True)
            if requester is None:
                unpacked = await to_its_end(_unpack_plain, sent, files, limit)
            else:
                unpacked = await self._sealer.unpack(sent, requester, files, limit)
            await asyncio.to_thread(sent.unlink)
            for each in unpacked.files:
                each.path.chmod(0o444)  # containers run as somebody else; nobody gets through the directory above
            arguments = _Arguments(unpacked.arguments, JSON, unpacked.files)
            await to_its_end(_write_opened, opened, arguments)
        except OSError as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                f"the node has no room for the arguments: {problem.strerror}: ask its admin to look at the disk",
            ) from problem
        return arguments

    def _context(
        self,
        assign: pb.Assign,
        arguments: _Arguments,
        questions: Mapping[str, Asked],
        given: GivenOrder | None,
        function: Function,
        token: str,
    ) -> RunContext:
        spec = assign.spec
        if unbound := questions.keys() - {each.parameter for each in spec.targets[0].datasets}:
            raise error(
                Reason.ARGUMENTS_INVALID, f"there is a question, but no dataset, for {', '.join(unbound)[:200]}"
            )
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
            token=token,
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


def _with_seal(size: int) -> int:
    """Bytes of so many, sealed or in an archive: a little more."""
    return size + size // 64 + 1024 * 1024


def _unpack_plain(sent: Path, files: Path, limit: int) -> argument_files.Unpacked:
    with sent.open("rb") as stream:
        return argument_files.unpack(stream, files, limit)


def _write_opened(directory: Path, arguments: _Arguments) -> None:
    files = [(each.parameter, each.path.name) for each in arguments.files]
    record = directory / f"{_OPENED}.new"
    record.write_text(json.dumps({"arguments": arguments.content.decode("latin-1"), "files": files}))
    record.rename(directory / _OPENED)


def _read_opened(directory: Path) -> _Arguments | None:
    try:
        record = json.loads((directory / _OPENED).read_text())
    except FileNotFoundError:
        return None
    files = tuple(ArgumentFile(parameter, directory / "files" / name) for parameter, name in record["files"])
    return _Arguments(record["arguments"].encode("latin-1"), JSON, files)


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
