"""Tasks: what may be asked, and what state follows from the runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from vantage.common import names
from vantage.common.errors import Reason, error
from vantage.server.domain.contents import Failure, Payload
from vantage.server.domain.membership import Standing
from vantage.server.domain.runs import DEFAULT_ATTEMPTS, MAX_ATTEMPTS, Lease, Run

MAX_TARGETS = 1_000
MAX_TITLE = 200
MAX_FUNCTION = 100
MAX_DATASETS = 100
MAX_IMAGE = 500
MAX_ORDER_BYTES = 2 * 1024 * 1024
MAX_KEY_VERSIONS = 64
DEFAULT_TIMEOUT = timedelta(hours=1)
MAX_TIMEOUT = timedelta(days=30)
MAX_RUNTIME = timedelta(days=30)
MAX_DEPTH = 4
"""How deep subtasks of subtasks go; a task of a user has depth 0."""
MAX_SUBTASKS = 1_000
"""How many subtasks one run may create."""

_IMAGE = re.compile(r"[A-Za-z0-9.\-]+(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class TaskState(IntEnum):
    """Where a task is in its life; the numbers are those of the contract."""

    ACTIVE = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4
    EXPIRED = 5


class OnFailure(IntEnum):
    """What becomes of the other runs when one ends without a result; the numbers are those of the contract."""

    CONTINUE = 1
    CANCEL_REST = 2


@dataclass(frozen=True, slots=True)
class Target:
    """One organization that is asked.

    Attributes:
        node: "" for any of its nodes.
        datasets: (parameter, dataset).
        key_versions: (holder, version) of the lists of keys that the arguments are sealed to.
    """

    organization: str
    node: str
    arguments: Payload | None
    datasets: tuple[tuple[str, str], ...]
    key_versions: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What is asked.

    Attributes:
        timeout: zero for the default.
        parent_run: "" for a task of a user.
        quorum: how many answers suffice; 0 for all.
        max_runtime: of the algorithm in one run; zero for as long as the node allows.
        max_attempts: how often a run is handed to a node.
        detached: whether a subtask goes on when its parent ends.
    """

    collaboration: str
    title: str
    image: str
    function: str
    targets: tuple[Target, ...]
    timeout: timedelta
    parent_run: str
    order: bytes
    parent_orders: tuple[bytes, ...] = ()
    study: str = ""
    quorum: int = 0
    on_failure: OnFailure = OnFailure.CONTINUE
    max_runtime: timedelta = timedelta(0)
    max_attempts: int = DEFAULT_ATTEMPTS
    detached: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A question to organizations.

    Attributes:
        owner: the user at the root: who asked for the task, or for the task whose run asked for it.
        owner_organization: organization of the owner, or "".
        depth: 0 for a task of a user, one more than the parent's for a subtask.
    """

    name: str
    spec: TaskSpec
    state: TaskState
    creator: str
    creator_organization: str
    owner: str
    owner_organization: str
    depth: int
    created: datetime
    deadline: datetime
    finished: datetime | None
    last_sequence: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """A run with all that its node needs to know; of the targets only the node's own."""

    lease: Lease
    spec: TaskSpec
    creator: str
    creator_organization: str
    deadline: datetime
    organizations: tuple[str, ...]

    @property
    def weight(self) -> int:
        """Bytes that it holds in memory, roughly."""
        arguments = (target.arguments for target in self.spec.targets)
        inline = sum(len(each.inline or b"") for each in arguments if each is not None)
        return 1_024 + inline + len(self.spec.order) + sum(map(len, self.spec.parent_orders))


def validate_spec(spec: TaskSpec) -> None:
    """Check what can be checked without knowing anything else.

    Raises:
        InvalidArgumentError: INVALID_ARGUMENT or IMAGE_NOT_BY_DIGEST; names the field.
    """
    if spec.parent_run:
        names.parse(spec.parent_run, "tasks/runs", field="spec.parent_run")
    if spec.collaboration or not spec.parent_run:
        names.parse(spec.collaboration, "collaborations", field="spec.collaboration")
    if spec.study:
        study = names.parse(spec.study, "collaborations/studies", field="spec.study")
        if spec.collaboration and str(study.parent) != spec.collaboration:
            raise _invalid("spec.study", f"must be a study of {spec.collaboration}")
    if len(spec.title) > MAX_TITLE or "\n" in spec.title:
        raise _invalid("spec.title", f"must be one line of at most {MAX_TITLE} characters")
    if len(spec.image) > MAX_IMAGE or _IMAGE.fullmatch(spec.image) is None:
        raise error(
            Reason.IMAGE_NOT_BY_DIGEST,
            "spec.image must be REGISTRY/REPOSITORY@sha256:HEX: a tag may point elsewhere tomorrow; "
            "'vantage image verify' prints the digest",
            field="spec.image",
        )
    if len(spec.function) > MAX_FUNCTION or _FUNCTION.fullmatch(spec.function) is None:
        raise _invalid("spec.function", "must be the name of a function that the image declares")
    if len(spec.order) > MAX_ORDER_BYTES:
        raise _invalid("spec.order", f"must have at most {MAX_ORDER_BYTES} bytes")
    if not timedelta(0) <= spec.timeout <= MAX_TIMEOUT:
        raise _invalid("spec.timeout", "must be above zero and at most 30 days, or absent for one hour")
    if not 1 <= len(spec.targets) <= MAX_TARGETS:
        raise _invalid("spec.targets", f"must name 1 to {MAX_TARGETS} organizations")
    seen: set[str] = set()
    for target in spec.targets:
        _validate_target(target)
        if target.organization in seen:
            raise _invalid("spec.targets", f"names {target.organization} twice: each organization at most once")
        seen.add(target.organization)
    _validate_course(spec)


def _validate_course(spec: TaskSpec) -> None:
    """How the task is to go on and when it is to end."""
    if not 0 <= spec.quorum <= len(spec.targets):
        raise _invalid(
            "spec.quorum", f"must be at most {len(spec.targets)}, as many as are asked, or 0 for all of them"
        )
    if not timedelta(0) <= spec.max_runtime <= MAX_RUNTIME or spec.max_runtime % timedelta(seconds=1):
        raise _invalid("spec.max_runtime", "must be whole seconds, at least one and at most 30 days, or absent")
    if not 1 <= spec.max_attempts <= MAX_ATTEMPTS:
        raise _invalid("spec.max_attempts", f"must be 1 to {MAX_ATTEMPTS}, or 0 for {DEFAULT_ATTEMPTS}")
    if spec.detached and not spec.parent_run:
        raise _invalid("spec.detached", "is for subtasks: a task of a user has no run to outlive")


def _validate_target(target: Target) -> None:
    names.parse(target.organization, "organizations", field="spec.targets.organization")
    if target.node and str(names.parse(target.node, "organizations/nodes", field="spec.targets.node").parent) != (
        target.organization
    ):
        raise _invalid("spec.targets.node", f"must be a node of {target.organization}")
    if len(target.datasets) > MAX_DATASETS:
        raise _invalid("spec.targets.datasets", f"must be at most {MAX_DATASETS}")
    if len({parameter for parameter, _dataset in target.datasets}) != len(target.datasets):
        raise _invalid("spec.targets.datasets", "binds a parameter twice")
    if len(target.key_versions) > MAX_KEY_VERSIONS:
        raise _invalid("spec.targets.key_versions", f"must be at most {MAX_KEY_VERSIONS}")
    for parameter, dataset in target.datasets:
        if _NAME.fullmatch(parameter) is None or _NAME.fullmatch(dataset) is None:
            raise _invalid(
                "spec.targets.datasets", "must name a parameter and a dataset with letters, digits, '_', '-' and '.'"
            )


def _invalid(field: str, text: str) -> Exception:
    return error(Reason.INVALID_ARGUMENT, f"{field} {text}", field=field)


def check_members(members: Mapping[str, Standing], spec: TaskSpec, asking: str | None) -> None:
    """Check that everybody belongs to the collaboration and takes part in it now.

    Args:
        members: its members and where they stand.
        spec: what is asked.
        asking: organization of the caller, or None for a user of the server itself, who belongs to none.

    Raises:
        InvalidArgumentError: ORGANIZATION_NOT_MEMBER or MEMBERSHIP_SUSPENDED.
    """
    for organization in (asking, *(target.organization for target in spec.targets)):
        if organization is None or (standing := members.get(organization)) is Standing.ACTIVE:
            continue
        if standing is None:
            raise error(
                Reason.ORGANIZATION_NOT_MEMBER,
                f"{organization} is not a member of {spec.collaboration}: choose among its organizations, "
                "or ask its creator to invite this one",
                organization=organization,
                collaboration=spec.collaboration,
            )
        raise error(
            Reason.MEMBERSHIP_SUSPENDED,
            f"{organization} has suspended its membership of {spec.collaboration}: leave it out, or ask its admin",
            organization=organization,
            collaboration=spec.collaboration,
        )


def check_study(organizations: frozenset[str], spec: TaskSpec, asking: str | None) -> None:
    """Check that everybody belongs to the study.

    Args:
        organizations: those of the study.
        spec: what is asked.
        asking: as for ``check_members``; the same answer whether the study does not exist or the caller is not in it.

    Raises:
        NotFoundError: there is no such study, for the caller.
        InvalidArgumentError: ORGANIZATION_NOT_MEMBER: a target is not in it.
    """
    if not organizations or (asking is not None and asking not in organizations):
        raise error(
            Reason.NOT_FOUND, f"{spec.study} does not exist, or your organization is not part of it", name=spec.study
        )
    for target in spec.targets:
        if target.organization not in organizations:
            raise error(
                Reason.ORGANIZATION_NOT_MEMBER,
                f"{target.organization} is not part of {spec.study}: choose among its organizations",
                organization=target.organization,
                study=spec.study,
            )


def deadline_of(spec: TaskSpec, now: datetime, parent: datetime | None) -> datetime:
    """When a task ends at the latest: never after the task whose run asks."""
    own = now + (spec.timeout or DEFAULT_TIMEOUT)
    return own if parent is None else min(own, parent)


@dataclass(frozen=True, slots=True)
class Tally:
    """How the runs of a task stand.

    Attributes:
        open_runs: how many have not ended.
        succeeded: how many ended with a result.
        unsuccessful: how many ended without one.
        quorum: how many results suffice; 0 for all.
        on_failure: what becomes of the others when one ends without a result.
    """

    open_runs: int
    succeeded: int
    unsuccessful: int
    quorum: int = 0
    on_failure: OnFailure = OnFailure.CONTINUE


_REACHED = Failure(
    Reason.QUORUM_REACHED.name, "the answer was not needed any more: as many organizations have answered as were to"
)
_MISSED = Failure(
    Reason.QUORUM_MISSED.name,
    "too few organizations can answer for the quorum of the task: see why the others did not, or ask for fewer",
)
_OTHER_FAILED = Failure(
    Reason.OTHER_RUN_FAILED.name,
    "another organization gave no answer, and the task was to end then: see why that one did not",
)


def early_end(tally: Tally) -> tuple[TaskState, Failure] | None:
    """How a task ends before all of its runs have, and what its open runs are left with; None while it goes on."""
    if not tally.open_runs:
        return None
    if tally.quorum and tally.succeeded >= tally.quorum:
        return TaskState.SUCCEEDED, _REACHED
    if tally.quorum and tally.succeeded + tally.open_runs < tally.quorum:
        return TaskState.FAILED, _MISSED
    if tally.unsuccessful and tally.on_failure is OnFailure.CANCEL_REST:
        return TaskState.FAILED, _OTHER_FAILED
    return None


def final_state(tally: Tally, closing: TaskState | None) -> TaskState:
    """State of a task from its runs.

    Args:
        tally: how its runs stand.
        closing: the final state that somebody, the clock or the rules of the task chose before all runs had ended.
    """
    if tally.open_runs:
        return TaskState.ACTIVE
    if closing is not None:
        return closing
    missing = tally.succeeded < tally.quorum if tally.quorum else tally.unsuccessful
    return TaskState.FAILED if missing else TaskState.SUCCEEDED
