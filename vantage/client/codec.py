"""Questions into signed and sealed tasks, and runs into results that are verified."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from vantage.api.admin.v1 import collaboration_service_pb2 as collaboration_pb
from vantage.api.admin.v1 import study_service_pb2 as study_pb
from vantage.api.identity.v1 import key_service_pb2 as key_pb
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.client.asking import DEFAULT_TIMEOUT, OwnOrder, delegation_of, sign
from vantage.client.authorities import Authorities
from vantage.client.caller import Caller
from vantage.client.keyring import Keyring
from vantage.client.models import Failure, OnFailure, Question, Result, Run, RunState, Target, Task
from vantage.client.opening import value_of
from vantage.client.packing import Packer, given_of
from vantage.client.payloads import Payloads
from vantage.client.short_names import full, full_node, full_study
from vantage.common import dsse, names
from vantage.common.attestation import verify_bytes, verify_statement
from vantage.common.data_questions import split_references
from vantage.common.errors import NotFoundError, PermissionDeniedError, Reason, VantageError, error
from vantage.common.recipients import KeyDirectory, Recipients
from vantage.common.statements import Order
from vantage.common.trust import TrustStore

MAX_KEY_PAGE = 500
MEMBERS_CURRENT = timedelta(minutes=1)
"""How long the members of a collaboration are not asked for again."""
_SERVERS_WORD = frozenset(
    {"NODE_LOST", "NODE_STOPPING", "NO_RESULT", "RESULT_TOO_LARGE", "ORGANIZATION_NOT_MEMBER", "TASK_CANCELLED"}
)
"""Reasons with which a server itself calls a run failed: no node has signed anything."""
_OUTCOMES = {RunState.SUCCEEDED: "succeeded", RunState.FAILED: "failed", RunState.REFUSED: "refused"}


@dataclass(frozen=True)
class Identity:
    """Who asks, and whom they trust.

    Attributes:
        keyring: signs and opens.
        trust: authorities that the user trusts.
        seen: versions of lists of keys that were seen, by holder: an older one is never believed again.
    """

    keyring: Keyring
    trust: TrustStore
    seen: MutableMapping[str, int] = field(default_factory=dict)


class _Bound:
    """An identity with what was learnt from the server for it."""

    def __init__(self, identity: Identity, caller: Caller) -> None:
        self.keyring = identity.keyring
        self.authorities = Authorities(caller, identity.trust)
        self.directory = KeyDirectory(_fetch(caller), self.authorities.certify, caller.clock, identity.seen)


class Codec:
    """Makes tasks of questions, and results of runs.

    Args:
        caller: asks the server for keys and members.
        payloads: carries arguments and results.
        identity: gives who asks, when that is needed first; None for nobody: tasks are neither signed nor sealed, and
            results are the server's word.
    """

    def __init__(self, caller: Caller, payloads: Payloads, identity: Callable[[], Identity | None]) -> None:
        self._caller = caller
        self._payloads = payloads
        self._packer = Packer(payloads)
        self._identity = identity
        self._bound: _Bound | None = None
        self._asked = False
        self._lock = asyncio.Lock()
        self._members: dict[str, tuple[datetime, tuple[str, ...]]] = {}

    async def encode(self, question: Question, request_id: str) -> task_pb2.TaskSpec:
        """The message of a question, sealed and signed when there are keys; large arguments are uploaded.

        Raises:
            VantageError: something is not as it must be, or an organization's keys are not to be believed.
        """
        chosen = [*(Target(each) for each in question.organizations), *question.targets]
        spec = task_pb2.TaskSpec(
            collaboration=full("collaborations", question.collaboration, field="collaboration"),
            title=question.title,
            image=question.image,
            function=question.function,
            targets=[_target(each, question.datasets) for each in chosen],
        )
        if question.study:
            spec.study = full_study(question.study, spec.collaboration, field="study")
        if question.timeout is not None:
            spec.timeout.FromTimedelta(question.timeout)
        _set_course(spec, question)
        given = given_of(chosen, question)
        bound = await self._who()
        if bound is None:
            await self._packer.plain(spec, given, request_id)
            return spec
        if question.timeout is None:
            spec.timeout.FromTimedelta(DEFAULT_TIMEOUT)  # what is signed must not depend on the server's default
        await bound.authorities.refresh()
        wanted = [(each.organization, each.node) for each in spec.targets]
        try:
            recipients = await bound.directory.of_all(spec.collaboration, wanted) if wanted else []
        except VantageError as problem:
            raise await self._explained(problem, spec) from None
        await self._packer.sealed(spec, given, recipients, bound.keyring.name)
        _name_versions(spec, recipients)
        members = await self._organizations(spec) if question.delegate is not False else ()
        delegation = delegation_of(question.delegate, members)
        if wanted:  # without, the server says what is wrong
            spec.order = sign(spec, request_id, bound.keyring, delegation, self._caller.clock.now())
        return spec

    def forget_keys(self) -> None:
        """Fetch keys again for the next question: the server said KEYS_STALE."""
        if self._bound is not None:
            self._bound.directory.forget()

    async def recognise(self, envelope: bytes) -> OwnOrder | None:
        """The order of a task as the server tells it, if this user has signed it; None otherwise."""
        if not envelope or (bound := await self._who()) is None:
            return None
        await bound.authorities.refresh()
        try:
            # As of when it was signed: what was signed with a certificate that has ended since is still one's own.
            created = Order.decode(dsse.peek(envelope)).created
            signed = dsse.verify(envelope, Order.payload_type(), bound.authorities.certify, created)
            order = Order.decode(signed.payload)
        except VantageError:
            return None
        own = signed.signer.name == bound.keyring.name == order.requester
        return OwnOrder(order, signed.digest) if own else None

    async def open(
        self,
        run: Run,
        task: str,
        order: OwnOrder | None,
        *,
        sealed: bool = False,
        unverified: bool = False,
        into: Path | None = None,
    ) -> Result:
        """What an organization answered: verified, fetched and opened, or its failure.

        What does not pass a check becomes a failure with the reason RESULT_UNVERIFIED, never a value.

        Args:
            run: as the server tells it.
            task: name of the task that it must be of.
            order: what this user has signed.
            sealed: do not open it: the value is the sealed bytes.
            unverified: take the server's word for what no own order stands for.
            into: write it into this directory: the value is its path, and memory stays bounded.

        Raises:
            VantageError: the answer cannot be fetched or written.
        """
        if order is None and unverified:
            return await self._believe(run, into)
        if (bound := await self._who()) is None:
            return await self._believe(run, into)
        try:
            if order is None:
                raise _unverified("you have signed no order for this task: the server says what it wants")
            return await self._verify(run, task, order, bound, sealed=sealed, into=into)
        except VantageError as problem:
            if problem.reason is Reason.PAYLOAD_DIGEST_MISMATCH:
                problem = _unverified(problem.message)
            if problem.reason not in (Reason.RESULT_UNVERIFIED, Reason.SEAL_INVALID):
                raise
            failure = Failure(problem.reason.name, problem.message, {"state": run.state.name})
            return Result(run.organization, run.name, run.state, None, failure, run.node)

    async def _verify(
        self, run: Run, task: str, order: OwnOrder, bound: _Bound, *, sealed: bool, into: Path | None
    ) -> Result:
        target = next((each for each in order.order.targets if each.organization == run.organization), None)
        if target is None:
            raise _unverified(f"{run.organization} was not asked")
        if not run.name.startswith(f"{task}/runs/"):
            raise _unverified(f"{run.name} is not a run of {task}")
        if not run.statement:
            return _servers_word(run)
        await bound.authorities.refresh()
        signed = verify_statement(
            run.statement,
            bound.authorities.certify,
            order=order.digest,
            run=run.name,
            organization=target.organization,
            node=target.node,
            asked=order.order.created,
        )
        identities = () if sealed else bound.keyring.identities
        async with AsyncExitStack() as stack:
            fetched = None
            if run.content is not None:
                # The digest that the server tells proves nothing: that of the statement counts.
                content = replace(run.content, digest="")
                fetched = await stack.enter_async_context(self._payloads.fetched(content, into, identities))
            verified = verify_bytes(signed, None if fetched is None else fetched.digest)
            statement = verified.statement
            if _OUTCOMES.get(run.state) != statement.outcome:
                raise _unverified(f"the server calls the run {run.state.name}, its node {statement.outcome.upper()}")
            made = Result(run.organization, run.name, run.state, None, None, verified.node, verified=True)
            if statement.failure is not None:
                told = run.failure.reason if run.failure is not None else ""
                if told != statement.failure.reason[:80]:
                    raise _unverified(f"the server tells of {told}, its node of {statement.failure.reason}")
                return replace(made, failure=Failure(statement.failure.reason, statement.failure.message))
            assert statement.result is not None  # noqa: S101  # verify_statement: a success has one
            media_type = statement.result.media_type
            if fetched is None:
                return replace(made, media_type=media_type)
            value = await value_of(fetched, media_type, identities, name=_file_name(run), sealed=sealed)
            return replace(made, value=value, media_type=media_type)

    async def _believe(self, run: Run, into: Path | None) -> Result:
        """A result as the server tells it."""
        if run.content is None:
            return Result(run.organization, run.name, run.state, None, run.failure, run.node)
        identities: Sequence[str] = ()
        if run.content.sealing == types_pb2.SEALING_AGE_V1:
            if (bound := await self._who()) is None:
                raise error(
                    Reason.SEAL_INVALID,
                    "the result is sealed, and there are no keys here to open it: use the profile whose key asked",
                )
            identities = bound.keyring.identities
        media_type = run.content.media_type
        async with self._payloads.fetched(run.content, into, identities) as fetched:
            value = await value_of(fetched, media_type, identities, name=_file_name(run))
        return Result(run.organization, run.name, run.state, value, run.failure, run.node, media_type)

    async def _who(self) -> _Bound | None:
        async with self._lock:
            if not self._asked:
                identity = await asyncio.to_thread(self._identity)
                self._bound = None if identity is None else _Bound(identity, self._caller)
                self._asked = True
            return self._bound

    async def _organizations(self, spec: task_pb2.TaskSpec) -> Sequence[str]:
        """Members of the collaboration or study; those that are asked when this user may not see it."""
        where, now = spec.study or spec.collaboration, self._caller.clock.now()
        known = self._members.get(where)
        if known is not None and now - known[0] < MEMBERS_CURRENT:
            return known[1]
        try:
            found = await self._list_organizations(spec)
        except (PermissionDeniedError, NotFoundError):
            return [each.organization for each in spec.targets]
        self._members[where] = (now, found)
        return found

    async def _explained(self, problem: VantageError, spec: task_pb2.TaskSpec) -> VantageError:
        """Who has no keys may be no member: then that is what is wrong."""
        organization = problem.metadata.get("organization", "")
        if problem.reason is not Reason.KEYS_INVALID or not organization:
            return problem
        # Whoever joined just now is a member, without keys yet.
        self._members.pop(spec.study or spec.collaboration, None)
        if organization in await self._organizations(spec):
            return problem
        return error(
            Reason.ORGANIZATION_NOT_MEMBER,
            f"{organization} is not a member of {spec.study or spec.collaboration}: leave it out, or ask its creator "
            "to add it",
            organization=organization,
        )

    async def _list_organizations(self, spec: task_pb2.TaskSpec) -> tuple[str, ...]:
        if spec.study:
            study = await self._caller.unary(
                lambda stubs: stubs.studies.GetStudy, study_pb.GetStudyRequest(name=spec.study), repeatable=True
            )
            return tuple(study.study.organizations)
        answer = await self._caller.unary(
            lambda stubs: stubs.collaborations.GetCollaboration,
            collaboration_pb.GetCollaborationRequest(name=spec.collaboration),
            repeatable=True,
        )
        return tuple(answer.collaboration.organizations)


def check_task(task: Task, name: str) -> Task:
    """See that the server tells of the task that it was asked for.

    Raises:
        TrustError: RESULT_UNVERIFIED.
    """
    if task.name != name:
        raise _unverified(f"the server tells of another task, {task.name}, than {name}")
    return task


def check_runs(runs: Sequence[Run], order: OwnOrder | None) -> None:
    """See that the runs are those that were asked for, each once: one answer must not count for two.

    Raises:
        TrustError: RESULT_UNVERIFIED.
    """
    if order is None:
        return
    wanted = [each.organization for each in order.order.targets]
    if [run.organization for run in runs] != wanted or len({run.name for run in runs}) != len(wanted):
        raise _unverified("the server does not tell of one run for each organization that was asked")


def own_id(request_id: str | None) -> str:
    """A request id in its one spelling, a new one for None.

    Raises:
        InvalidArgumentError: it is not a UUID.
    """
    try:
        return str(uuid.UUID(request_id)) if request_id else str(uuid.uuid4())
    except ValueError:
        raise error(Reason.INVALID_ARGUMENT, "request_id must be a UUID", field="request_id") from None


def _fetch(caller: Caller) -> Callable[[str, Sequence[str]], Any]:
    """See ``recipients.Fetch``."""

    async def fetch(collaboration: str, organizations: Sequence[str]) -> Iterable[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        request = key_pb.ListNodeKeysRequest(
            page_size=MAX_KEY_PAGE, collaboration=collaboration, organizations=organizations
        )
        while True:
            page = await caller.unary(lambda stubs: stubs.keys.ListNodeKeys, request, repeatable=True)
            found += [(each.holder, each.envelope) for each in page.keys]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    return fetch


def _set_course(spec: task_pb2.TaskSpec, question: Question) -> None:
    """How the task is to go on, and when it is to end."""
    spec.quorum = question.quorum
    if question.on_failure is OnFailure.CANCEL_REST:
        spec.on_failure = task_pb2.ON_FAILURE_CANCEL_REST
    if question.max_attempts is not None:
        if question.max_attempts < 1:
            raise error(Reason.INVALID_ARGUMENT, "max_attempts must be at least 1", field="max_attempts")
        spec.max_attempts = question.max_attempts
    if question.max_runtime is not None:
        if question.max_runtime <= timedelta(0):
            raise error(Reason.INVALID_ARGUMENT, "max_runtime must be above zero", field="max_runtime")
        spec.max_runtime.FromSeconds(math.ceil(question.max_runtime.total_seconds()))


def _target(target: Target, common: Mapping[str, str]) -> task_pb2.Target:
    organization = full("organizations", target.organization, field="organization")
    bound = target.datasets if target.datasets is not None else common
    node = full_node(target.node, organization) if target.node else ""
    if node and str(names.parse(node, "organizations/nodes").parent) != organization:
        raise error(Reason.INVALID_ARGUMENT, f"{node} is not a node of {organization}", field="node")
    return task_pb2.Target(
        organization=organization,
        node=node,
        datasets=[
            task_pb2.DatasetBinding(parameter=parameter, dataset=name)
            for parameter, name in split_references(bound)[0].items()
        ],
    )


def _name_versions(spec: task_pb2.TaskSpec, recipients: Sequence[Recipients]) -> None:
    for target, whom in zip(spec.targets, recipients, strict=True):
        for holder, version in whom.versions:
            target.key_versions.add(holder=holder, version=version)


def _file_name(run: Run) -> str:
    """What the file of an answer is called: never what a server would like to be a path."""
    return names.parse(run.organization, "organizations", field="organization").id


def _servers_word(run: Run) -> Result:
    """How a run ended that the server itself ended: nobody else can tell.

    Raises:
        TrustError: RESULT_UNVERIFIED, a node would have had to sign that.
    """
    reason = run.failure.reason if run.failure is not None else ""
    if run.content is not None or (run.state in _OUTCOMES and reason not in _SERVERS_WORD):
        raise _unverified(
            "the server delivers it without the node's signature: the node is not set up to sign, or the server has "
            f"left it out (the server says: {run.state.name} {reason})".replace(" )", ")")
        )
    return Result(run.organization, run.name, run.state, None, run.failure, run.node)


def _unverified(why: str) -> VantageError:
    return error(Reason.RESULT_UNVERIFIED, f"the result is not to be trusted: {why}")
