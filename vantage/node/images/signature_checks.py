"""The checks that ask who has signed what about an image. The numbers are those of the list in ``verifier``."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar

from vantage.common.errors import Reason
from vantage.common.image_statements import counts_for
from vantage.common.predicate_types import SIGNATURE, is_of
from vantage.node.images.checks import Case, refuse
from vantage.node.images.facts import ImageFacts, Proven
from vantage.node.images.keys import TrustedKey
from vantage.node.policy import Decision


@dataclass(frozen=True)
class _Tally:
    """Keys that have signed something, by whether they count."""

    good: dict[str, str] = field(default_factory=dict)
    revoked: dict[str, str] = field(default_factory=dict)
    expired: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)


def _tally(case: Case, keys: Collection[TrustedKey], predicates: Collection[str], signed_as: Collection[str]) -> _Tally:
    proven = [each for each in case.facts.proven if is_of(each.predicate, predicates)] if case.facts is not None else []
    tally = _Tally()
    for key in keys:
        theirs = [each for each in proven if each.fingerprint == key.fingerprint]
        if not theirs:
            continue
        if key.fingerprint in case.revoked.keys:
            tally.revoked[key.fingerprint] = key.name
        elif key.has_expired(case.now):
            tally.expired[key.fingerprint] = key.name
        # A signer who wrote a repository has signed for that one: a copy elsewhere may be under a laxer rule.
        elif all(_is_elsewhere(each, case.reference.repository, signed_as) for each in theirs):
            names = sorted(frozenset().union(*(each.repositories for each in theirs)))
            tally.elsewhere[key.fingerprint] = f"{key.name} (for {', '.join(names)[:200]})"
        else:
            tally.good[key.fingerprint] = key.name
    return tally


def _is_elsewhere(proven: Proven, repository: str, signed_as: Collection[str]) -> bool:
    # Attestations name their subjects in many ways: package URLs, files. What counts there is the digest.
    return proven.predicate == SIGNATURE and not counts_for(proven.repositories, repository, signed_as)


@dataclass(frozen=True)
class SignedBy:
    """Enough different keys have signed the image.

    Attributes:
        keys: that count.
        threshold: how many of them.
        signed_as: repositories, besides the image's own, that signers may have signed it for.
        role: only keys of this role count.
    """

    keys: tuple[TrustedKey, ...]
    threshold: int
    signed_as: tuple[str, ...] = ()
    role: str | None = None
    number: ClassVar[int] = 10
    title: ClassVar[str] = "enough trusted keys have signed it"
    needs_facts: ClassVar[bool] = True

    def signers(self, case: Case) -> tuple[str, ...]:
        """Names of the keys that count."""
        return tuple(sorted(_tally(case, self.keys, (SIGNATURE,), self.signed_as).good.values()))

    def decide(self, case: Case) -> Decision:
        """See ``Check``."""
        facts, reference = case.facts, case.reference
        tally = _tally(case, self.keys, (SIGNATURE,), self.signed_as)
        whom = f"keys of the role {self.role}" if self.role else "keys"
        if len(tally.good) >= self.threshold:
            names = ", ".join(sorted(tally.good.values()))
            return Decision(because=f"{len(tally.good)} of the {self.threshold} {whom} that are needed: {names}")
        if facts is None or not facts.signatures + facts.foreign:
            return refuse(
                case,
                Reason.IMAGE_UNSIGNED,
                f"the image {reference} is not signed: its author signs it with 'vantage image sign' or cosign",
            )
        reason, why, remedy = self._why(tally, facts)
        return refuse(case, reason, f"the image {reference} may not run: {why}: {remedy}")

    def _why(self, tally: _Tally, facts: ImageFacts) -> tuple[Reason, str, str]:
        """What would have to be otherwise for it to hold."""
        have = len(tally.good)
        for reason, names, why, remedy in (
            (Reason.IMAGE_KEY_REVOKED, tally.revoked, "is revoked", "let a holder of another key sign it"),
            (
                Reason.IMAGE_KEY_EXPIRED,
                tally.expired,
                "is expired",
                "let its holder sign with a new key, or ask the admin",
            ),
            (
                Reason.IMAGE_SIGNED_ELSEWHERE,
                tally.elsewhere,
                "has signed it for another repository",
                "sign it here, or let the node's admin accept that name (signed_as)",
            ),
        ):
            have += len(names)
            if names and have >= self.threshold:
                return reason, f"the key {', '.join(sorted(names.values()))} {why}", remedy
        ask = "ask its author to sign it, or the node's admin to trust the key"
        if not facts.signatures:
            return (
                Reason.IMAGE_SIGNATURE_INVALID,
                f"{facts.foreign} signatures lie with it, none is about this image",
                ask,
            )
        if not tally.good:
            whose = f"a key of the role {self.role}" if self.role else "a key"
            why = f"none of its {facts.signatures} signatures is by {whose} that the node trusts"
            return Reason.IMAGE_SIGNATURE_INVALID, why, ask
        whom = f"keys of the role {self.role}" if self.role else "keys"
        why = f"{len(tally.good)} of the {self.threshold} {whom} that the node asks for have signed it"
        return Reason.IMAGE_SIGNATURES_TOO_FEW, why, ask


@dataclass(frozen=True)
class SignedInRole(SignedBy):
    """Enough different keys of one role have signed the image."""

    number: ClassVar[int] = 11
    title: ClassVar[str] = "enough keys of each role have signed it"


@dataclass(frozen=True)
class Attested:
    """An attestation of a kind lies with the image, signed by enough trusted keys. What it says is not judged.

    Attributes:
        kind: as the policy calls it.
        predicates: types that it may have.
        keys: that count.
        threshold: how many of them.
    """

    kind: str
    predicates: tuple[str, ...]
    keys: tuple[TrustedKey, ...]
    threshold: int = 1
    number: ClassVar[int] = 12
    title: ClassVar[str] = "the attestations that the rule asks for are there"
    needs_facts: ClassVar[bool] = True

    def decide(self, case: Case) -> Decision:
        """See ``Check``."""
        tally = _tally(case, self.keys, self.predicates, ())
        if len(tally.good) >= self.threshold:
            return Decision(because=f"{self.kind} by {', '.join(sorted(tally.good.values()))}")
        lapsed = sorted({*tally.revoked.values(), *tally.expired.values()})
        aside = f"; that of {', '.join(lapsed)} counts no more" if lapsed else ""
        return refuse(
            case,
            Reason.IMAGE_ATTESTATION_MISSING,
            f"the image {case.reference} may not run: it needs the attestation {self.kind} by {self.threshold} of "
            f"{', '.join(sorted(key.name for key in self.keys))}, and has {len(tally.good)}{aside}: ask its author",
        )
