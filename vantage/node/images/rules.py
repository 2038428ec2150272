"""Rules of the node's policy about images, put together from checks, and what they say of a case."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from vantage.common.errors import Reason, VantageError, error
from vantage.common.predicate_types import SIGNATURE, is_of
from vantage.node.argument_bounds import ArgumentBounds
from vantage.node.config import PolicySection
from vantage.node.image_sections import ImageRule
from vantage.node.images.checks import (
    AskedBy,
    Case,
    Check,
    NotOver,
    NotRevoked,
    OfFunctions,
    OfRepository,
    Revoked,
)
from vantage.node.images.keys import TrustedKey, load_keys
from vantage.node.images.signature_checks import Attested, SignedBy, SignedInRole
from vantage.node.policy import Decision


@dataclass(frozen=True)
class Finding:
    """What a check says of a case."""

    check: Check
    decision: Decision


@dataclass(frozen=True)
class Rule:
    """Allows a case when all of its checks do.

    Attributes:
        pattern: of repositories.
        checks: in the order in which they are asked.
        signed_by: the one of them that counts signatures.
        bounds: what arguments must meet; None when they are free.
    """

    pattern: str
    checks: tuple[Check, ...]
    signed_by: SignedBy
    bounds: ArgumentBounds | None = None

    def judge(self, case: Case) -> tuple[Finding, ...]:
        """What each check says; without facts, only those that need none are asked."""
        asked = (check for check in self.checks if case.facts is not None or not check.needs_facts)
        return tuple(Finding(check, check.decide(case)) for check in asked)


@dataclass(frozen=True)
class Verdict:
    """What a policy says of a case.

    Attributes:
        general: what holds for every rule.
        rules: of each rule that is about the repository, its findings.
        allowing: the rules whose every check holds.
        refusal: why none is; None when one is.
    """

    general: tuple[Finding, ...]
    rules: tuple[tuple[Rule, tuple[Finding, ...]], ...]
    allowing: tuple[Rule, ...]
    refusal: VantageError | None

    @property
    def bounds(self) -> tuple[ArgumentBounds, ...]:
        """What arguments must meet one of; empty when a rule that allows the case leaves them free."""
        found = tuple(rule.bounds for rule in self.allowing if rule.bounds is not None)
        return found if len(found) == len(self.allowing) else ()


@dataclass(frozen=True)
class ImagePolicy:
    """All rules.

    Attributes:
        rules: any of them suffices.
        keys: every key that a rule names.
        revoked: what no rule can allow.
        predicates: types of attestations that a rule asks for.
        version: digest of all this: the same rules and keys have the same one.
    """

    rules: tuple[Rule, ...]
    keys: tuple[TrustedKey, ...] = ()
    revoked: Revoked = field(default_factory=Revoked)
    predicates: tuple[str, ...] = ()
    version: str = ""

    def wanted(self, predicate: str) -> bool:
        """Whether statements of a type matter to any rule."""
        return predicate == SIGNATURE or is_of(predicate, self.predicates)

    def judge(self, case: Case) -> Verdict:
        """What the policy says of a case; without facts, whether it may still be allowed once they are known."""
        check = NotRevoked()
        general = (Finding(check, check.decide(case)),)
        about = [rule for rule in self.rules if OfRepository(rule.pattern).decide(case).allowed]
        judged = tuple((rule, rule.judge(case)) for rule in about)
        allowing = tuple(rule for rule, findings in judged if all(each.decision.allowed for each in findings))
        refusal = next((each.decision.refusal for each in general if not each.decision.allowed), None)
        if refusal is None and not allowing:
            refusal = _closest([findings for _rule, findings in judged]) or self._no_rule(case)
        return Verdict(general, judged, () if refusal is not None else allowing, refusal)

    def _no_rule(self, case: Case) -> VantageError:
        known = ", ".join(sorted({rule.pattern for rule in self.rules})) or "none"
        return error(
            Reason.IMAGE_NOT_ALLOWED,
            f"the node's policy does not allow images of {case.reference.repository}; it allows those of {known}: ask "
            "its admin",
            repository=case.reference.repository,
        )


def _closest(judged: Sequence[Sequence[Finding]]) -> VantageError | None:
    """The refusal of the rule that came furthest."""
    failed = [next((each for each in findings if not each.decision.allowed), None) for findings in judged]
    known = [each for each in failed if each is not None]
    return max(known, key=lambda each: each.check.number).decision.refusal if known else None


def load_policy(section: PolicySection) -> ImagePolicy:
    """The policy of a configuration, with its keys.

    Raises:
        InvalidArgumentError: KEY_INVALID.
        ConfigurationError: CONFIGURATION_INVALID, a threshold cannot be met.
    """
    keys = load_keys(section.keys)
    rules = tuple(_rule(each, keys) for each in section.images)
    revoked = Revoked(frozenset(section.revoked.keys), frozenset(section.revoked.digests))
    predicates = tuple(
        sorted({kind for rule in section.images for one in rule.attestations for kind in one.predicates})
    )
    effective = {
        "keys": {name: [key.fingerprint, key.role, str(key.expires)] for name, key in keys.items()},
        "rules": [each.model_dump(mode="json") for each in section.images],
        "revoked": section.revoked.model_dump(mode="json"),
    }
    version = hashlib.sha256(json.dumps(effective, sort_keys=True).encode()).hexdigest()
    return ImagePolicy(rules, tuple(keys.values()), revoked, predicates, f"sha256:{version}")


def _rule(section: ImageRule, keys: dict[str, TrustedKey]) -> Rule:
    mine = tuple(keys[name] for name in dict.fromkeys(section.keys))
    _require(section, "signatures", mine, section.threshold)
    signed_by = SignedBy(mine, section.threshold, section.signed_as)
    checks: list[Check] = [OfRepository(section.repository)]
    if section.expires is not None:
        checks.append(NotOver(section.expires))
    if section.functions is not None:
        checks.append(OfFunctions(frozenset(section.functions)))
    if section.organizations is not None or section.users is not None:
        organizations = None if section.organizations is None else frozenset(section.organizations)
        checks.append(AskedBy(organizations, None if section.users is None else frozenset(section.users)))
    checks.append(signed_by)
    for role, wanted in section.roles.items():
        theirs = tuple(key for key in mine if key.role == role)
        _require(section, f"signatures by a {role}", theirs, wanted)
        checks.append(SignedInRole(theirs, wanted, section.signed_as, role))
    for each in section.attestations:
        theirs = tuple(keys[name] for name in dict.fromkeys(each.keys)) if each.keys is not None else mine
        _require(section, f"attestations {each.type}", theirs, each.threshold)
        checks.append(Attested(each.type, each.predicates, theirs, each.threshold))
    return Rule(
        section.repository, tuple(checks), signed_by, ArgumentBounds(section.arguments) if section.arguments else None
    )


def _require(section: ImageRule, what: str, keys: Sequence[TrustedKey], threshold: int) -> None:
    different = len({key.fingerprint for key in keys})
    if threshold > different:
        raise error(
            Reason.CONFIGURATION_INVALID,
            f"policy.images: {section.repository} asks for {threshold} {what}, but its files hold only {different} "
            "different keys",
        )
