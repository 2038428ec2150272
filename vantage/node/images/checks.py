"""The checks that rules for images are made of: small objects that say whether a question may be answered, and why.

Here are those that need to know nothing of the image but its name; ``signature_checks`` has the others.

Each is pure: a case goes in, a decision comes out. The numbers are those of the list in ``verifier``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar, Protocol

from vantage.common.errors import Reason, error
from vantage.common.oci import ImageReference
from vantage.common.repository_patterns import matches
from vantage.node.image_sections import lists_user
from vantage.node.images.facts import ImageFacts
from vantage.node.images.keys import is_over
from vantage.node.policy import Decision
from vantage.node.sources import CodeRequest


@dataclass(frozen=True)
class Revoked:
    """What is never believed.

    Attributes:
        keys: fingerprints.
        digests: of manifests or configs.
    """

    keys: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    """What is decided about.

    Attributes:
        request: which image and function, and who asks.
        reference: the image.
        now: the moment.
        revoked: what is never believed.
        facts: what is known about the image; None before anybody has looked.
    """

    request: CodeRequest
    reference: ImageReference
    now: datetime
    revoked: Revoked
    facts: ImageFacts | None = None


class Check(Protocol):
    """One condition of a rule."""

    number: ClassVar[int]
    title: ClassVar[str]
    needs_facts: ClassVar[bool]

    def decide(self, case: Case) -> Decision:
        """Whether it holds."""
        ...


def refuse(case: Case, reason: Reason, why: str) -> Decision:
    """A decision against an image."""
    return Decision(error(reason, why, image=str(case.reference)))


@dataclass(frozen=True)
class NotRevoked:
    """Nobody has withdrawn the image. Asked again when its config is known, which another manifest may carry too."""

    number: ClassVar[int] = 2
    title: ClassVar[str] = "the image is not revoked"
    needs_facts: ClassVar[bool] = False

    def decide(self, case: Case) -> Decision:
        """See ``Check``."""
        known = {case.reference.digest} | ({case.facts.image_id} if case.facts is not None else set())
        if found := known & case.revoked.digests:
            return refuse(
                case,
                Reason.IMAGE_REVOKED,
                f"the node's admin has revoked {case.reference} ({min(found)}): use another version of the image",
            )
        return Decision(because="its digest is not in policy.revoked.digests")


@dataclass(frozen=True)
class OfRepository:
    """The rule is about the whole name of the repository, never a part of it."""

    pattern: str
    number: ClassVar[int] = 3
    title: ClassVar[str] = "the rule is about the repository"
    needs_facts: ClassVar[bool] = False

    def decide(self, case: Case) -> Decision:
        """See ``Check``."""
        repository = case.reference.repository
        if matches(self.pattern, repository):
            return Decision(because=f"{self.pattern} matches {repository}")
        return refuse(
            case,
            Reason.IMAGE_NOT_ALLOWED,
            f"{self.pattern} does not match {repository}, of which the whole name counts",
        )


@dataclass(frozen=True)
class NotOver:
    """The rule's time is not over."""

    expires: date
    number: ClassVar[int] = 4
    title: ClassVar[str] = "the rule is in force"
    needs_facts: ClassVar[bool] = False

    def decide(self, case: Case) -> Decision:
        """See ``Check``."""
        if is_over(self.expires, case.now):
            return refuse(
                case,
                Reason.IMAGE_NOT_ALLOWED,
                f"the node's rule for {case.reference.repository} has expired on {self.expires}: ask its admin",
            )
        return Decision(because=f"it is until {self.expires}")


@dataclass(frozen=True)
class OfFunctions:
    """The rule allows the function."""

    names: frozenset[str]
    number: ClassVar[int] = 5
    title: ClassVar[str] = "the function is allowed"
    needs_facts: ClassVar[bool] = False

    def decide(self, case: Case) -> Decision:
        """See ``Check``."""
        function = case.request.function
        if function in self.names:
            return Decision(because=f"{function} is one of {', '.join(sorted(self.names))}")
        return refuse(
            case,
            Reason.IMAGE_NOT_ALLOWED,
            f"the node's policy does not allow the function {function[:100]!r} of {case.reference.repository}; it "
            f"allows {', '.join(sorted(self.names))}: ask its admin",
        )


@dataclass(frozen=True)
class AskedBy:
    """The rule allows the one who asks. A node that asks is taken for the user in whose name it does.

    Attributes:
        organizations: any when None.
        users: any when None; ``users/alice`` is whoever is called so in any organization.
    """

    organizations: frozenset[str] | None
    users: frozenset[str] | None
    number: ClassVar[int] = 6
    title: ClassVar[str] = "who asks is allowed"
    needs_facts: ClassVar[bool] = False

    def decide(self, case: Case) -> Decision:
        """See ``Check``."""
        request = case.request
        if self.organizations is not None and request.organization not in self.organizations:
            return self._no(case, request.organization or "callers of no organization", self.organizations)
        login = request.user.rpartition("/")[2]
        if self.users is not None and not lists_user(self.users, request.organization, login):
            return self._no(case, request.user or "callers whom no order names", self.users)
        return Decision(because=f"{request.user or request.organization or 'everybody'} may")

    def _no(self, case: Case, who: str, allowed: Collection[str]) -> Decision:
        return refuse(
            case,
            Reason.POLICY_REFUSED,
            f"the node's policy does not allow {who} to run {case.reference.repository}; it allows "
            f"{', '.join(sorted(allowed))}: ask its admin",
        )
