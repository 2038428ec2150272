"""Why a question would be allowed or refused, step by step, by the very objects that decide.

Nothing is remembered by looking. What is not looked at, since it belongs to the single run: the order and its age, the
datasets, graphics processors, and the room on the disks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.data_questions import take_questions
from vantage.common.errors import VantageError
from vantage.node.argument_bounds import check_bounds
from vantage.node.config import NodeConfig
from vantage.node.declaration import check_arguments
from vantage.node.images.checks import Case
from vantage.node.images.facts import ImageFacts
from vantage.node.images.rules import Finding, Verdict
from vantage.node.images.verifier import ImageVerifier, Sight
from vantage.node.policy import Decision, decide_request, decide_root
from vantage.node.sources import CodeRequest


@dataclass(frozen=True)
class Supposed:
    """A question that somebody might ask.

    Attributes:
        request: image, function, and who asks.
        collaboration: in which one; None for any that the node serves.
        arguments: JSON; None when they are not known.
    """

    request: CodeRequest
    collaboration: str | None = None
    arguments: bytes | None = None


@dataclass(frozen=True)
class Step:
    """One check.

    Attributes:
        number: in the list of ``verifier``; 0 for what comes before.
        check: what is checked.
        held: whether it held; None when it cannot be told.
        why: what was found.
        rule: pattern of the rule that it belongs to; empty for what counts for all.
        reason: of the refusal, if it did not hold.
    """

    number: int
    check: str
    held: bool | None
    why: str
    rule: str = ""
    reason: str = ""


@dataclass
class Explanation:
    """The whole reasoning.

    Attributes:
        policy: version of the policy.
        steps: in order; those of rules that do not allow the question are among them.
        refusal: why it is refused; None when it is not.
        complete: whether everything that is needed to decide was known.
    """

    policy: str
    steps: list[Step] = field(default_factory=list)
    refusal: VantageError | None = None
    complete: bool = True

    @property
    def allowed(self) -> bool | None:
        """Whether the question would be allowed; None when that cannot be told."""
        if self.refusal is not None:
            return False
        return True if self.complete else None

    def note(self, number: int, check: str, decision: Decision, rule: str = "") -> None:
        """Add a step."""
        reason = decision.refusal.reason.name if decision.refusal is not None else ""
        self.steps.append(Step(number, check, decision.allowed, decision.reason, rule, reason))

    def demand(self, number: int, check: str, decision: Decision) -> None:
        """Add a step without which nothing is allowed."""
        self.note(number, check, decision)
        self.refusal = self.refusal or decision.refusal

    def miss(self, number: int, check: str, why: str) -> None:
        """Add a step that cannot be judged."""
        self.steps.append(Step(number, check, None, why))
        self.complete = False


Has = Callable[[str], Awaitable[bool]]
"""Whether the engine has an image, by id; EXECUTOR_UNAVAILABLE when it does not answer."""


async def explain(
    config: NodeConfig, verifier: ImageVerifier, has: Has, supposed: Supposed, *, offline: bool
) -> Explanation:
    """Judge a question that nobody has asked yet.

    Args:
        config: the node's.
        verifier: its.
        has: asks its engine.
        supposed: the question.
        offline: ask no registry, and say what can be said with what this node knows.
    """
    found = Explanation(verifier.policy.version)
    found.demand(0, "the node takes questions of the one who asks", _request(config, supposed))
    try:
        case = verifier.case(supposed.request)
    except VantageError as problem:
        found.demand(1, "the image is named by digest", Decision(problem))
        return found
    found.note(1, "the image is named by digest", Decision(because=case.reference.digest))
    first = verifier.policy.judge(case)
    sight = Sight(None)
    if first.refusal is None:
        sight = await _look(verifier, case, found, offline=offline)
    verdict = first if sight.facts is None else verifier.policy.judge(replace(case, facts=sight.facts))
    for step in _judged(verdict):
        found.note(*step)
    if not verdict.rules and verdict.refusal is not None:
        found.note(3, "a rule is about the repository", Decision(verdict.refusal))
    found.refusal = found.refusal or verdict.refusal
    if sight.facts is not None:
        _call(found, supposed, sight.facts, verdict)
        await _present(found, has, sight.facts)
    return found


async def _present(found: Explanation, has: Has, facts: ImageFacts) -> None:
    """Whether a run needs the registry; it decides nothing."""
    try:
        there = await has(facts.image_id)
        why = "by its id: no registry is needed" if there else "not yet: it is fetched from the registry before it runs"
    except VantageError as problem:
        there, why = False, problem.message
    found.steps.append(Step(17, "the engine has the image", True if there else None, why))


def _request(config: NodeConfig, supposed: Supposed) -> Decision:
    """Whether the node takes the question at all."""
    request = supposed.request
    assign = pb.Assign(creator_organization=request.organization)
    assign.creator = f"users/{request.user.rpartition('/')[2]}"
    collaboration = supposed.collaboration or "collaborations/any"
    assign.spec.collaboration = collaboration
    assign.spec.targets.add(organization=config.identity.organization)
    decision = decide_request(config, assign, (collaboration,))
    if decision.allowed and request.user.startswith("organizations/"):
        decision = decide_root(config, request.user)
    return decision if not decision.allowed else Decision(because=f"{request.user or 'everybody'} may ask this node")


async def _look(verifier: ImageVerifier, case: Case, found: Explanation, *, offline: bool) -> Sight:
    check = "manifest, configuration and statements are those of the image"
    try:
        sight = await verifier.look(case, offline=offline, keep=False)
    except VantageError as problem:
        found.demand(7, check, Decision(problem))
        return Sight(None)
    facts = sight.facts
    if facts is None:
        found.miss(7, check, "this node knows nothing of it" if sight.problem is None else sight.problem.message)
        return sight
    whence = "as this node remembers them" if sight.remembered else "as the registry has them"
    aside = f"; {sight.problem.message}" if sight.problem is not None else ""
    told = f"{whence}{aside}: id {facts.image_id}, {facts.signatures} signatures about it, {facts.foreign} others"
    found.note(7, check, Decision(because=told))
    return sight


def _judged(verdict: Verdict) -> Iterator[tuple[int, str, Decision, str]]:
    def step(finding: Finding, rule: str = "") -> tuple[int, str, Decision, str]:
        return finding.check.number, finding.check.title, finding.decision, rule

    for each in verdict.general:
        yield step(each)
    for rule, findings in verdict.rules:
        for each in findings:
            yield step(each, rule.pattern)


def _call(found: Explanation, supposed: Supposed, facts: ImageFacts, verdict: Verdict) -> None:
    """What the image itself, and the rules that allow it, say of function and arguments."""
    try:
        function = facts.declaration.function(supposed.request.function)
    except VantageError as problem:
        found.demand(13, "the image declares the function", Decision(problem))
        return
    found.note(13, "the image declares the function", Decision(because=function.description or "it does"))
    if supposed.arguments is None:
        names = sorted({name for each in verdict.bounds for name in each.schemas})
        if names:
            found.miss(14, "the arguments are within bounds", f"give them (--arguments): {', '.join(names)} count")
        return
    try:
        content, _questions = take_questions(supposed.arguments)
        check_arguments(function, content)
    except VantageError as problem:
        found.demand(13, "the arguments are as declared", Decision(problem))
        return
    found.note(13, "the arguments are as declared", Decision(because="they meet its schema"))
    try:
        check_bounds(function, verdict.bounds, content)
    except VantageError as problem:
        found.demand(14, "the arguments are within bounds", Decision(problem))
        return
    free = "no rule that allows the question bounds them" if not verdict.bounds else "they are"
    found.note(14, "the arguments are within bounds", Decision(because=free))
