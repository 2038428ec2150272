"""Verifies images: the one place that builds ``VerifiedImage``, and executors accept nothing else.

The checks, in order; the code repeats the numbers.

 1. The image is named by digest; a tag, also beside a digest, is refused.
 2. The node's admin has not revoked its digest (nor, once it is known, that of its config).
 3. A rule of the policy is about the whole name of its repository. From here on all that follows must hold for one and
    the same rule; any rule suffices.
 4. The rule is in force: its day has not come.
 5. The rule allows the function.
 6. The rule allows the organization and the user who asks; what nodes ask counts as asked by the user at the top.
 7. The manifest has that digest, and is that of one image, not an index of several platforms.
 8. The config, which holds the declaration, has the digest that the manifest says. Its digest is the image's id.
 9. Signatures and attestations are those that lie with the image, under its tags or as its referrers; each has the
    digest that its manifest says, and speaks of this very digest: one about another image is none.
10. The signature over the bytes as stored verifies under a key of the rule that is neither revoked nor expired; when
    the signer wrote a repository, it is this one or one that the rule accepts. Different keys are counted, however
    often and in whichever layout they have signed, and reach the rule's threshold.
11. The same for the keys of each role that the rule counts by itself.
12. Each attestation that the rule asks for is there, signed by enough of the keys that it names.
13. The image declares the function, and the arguments meet the declared schema (``vantage.node.policy.decide_call``).
14. The arguments are within the bounds of the rule (``vantage.node.argument_bounds``).

15 to 17 are the puller's: what is fetched has the digests that were verified, and the engine has exactly that id
afterwards. The container is created by it, never by a name: between check and start nothing is resolved again.

What the bytes prove (7 to 9, and which keys have signed) stays true and is remembered, in memory for the policy's
version, and on disk as the bytes themselves, which are examined again when they are read. What may change with time, 2
to 6 and 10 to 14, is decided for every run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from vantage.common import oci
from vantage.common.clock import Clock
from vantage.common.declaration import Declaration
from vantage.common.errors import Reason, UnavailableError, VantageError, error
from vantage.common.oci import ImageReference
from vantage.node.argument_bounds import ArgumentBounds
from vantage.node.images.checks import Case
from vantage.node.images.evidence import Evidence, examine, read_evidence
from vantage.node.images.facts import ImageFacts
from vantage.node.images.rules import ImagePolicy, Verdict
from vantage.node.images.store import EvidenceStore
from vantage.node.sources import CodeRequest

log = logging.getLogger(__name__)

_MAX_CACHED = 1_000

Access = Callable[[str], oci.RegistryAccess]


@dataclass(frozen=True)
class VerifiedImage:
    """An image whose every check passed; only ``ImageVerifier.verify`` builds it.

    Attributes:
        reference: by digest.
        image_id: digest of its config, by which the container is created.
        declaration: what it says of itself; covered by the signatures.
        signers: names of the keys that signed it.
    """

    reference: ImageReference
    image_id: str
    declaration: Declaration
    signers: tuple[str, ...]


@dataclass(frozen=True)
class Admission:
    """An image that may run a function for somebody.

    Attributes:
        image: the image.
        bounds: the arguments must meet one of these; none when they are free.
    """

    image: VerifiedImage
    bounds: tuple[ArgumentBounds, ...]


@dataclass(frozen=True)
class Sight:
    """What could be learned of an image.

    Attributes:
        facts: what is known; None when nothing is.
        remembered: whether that is from this node, and its registry was not asked, or in vain.
        problem: why a registry that was asked did not tell.
    """

    facts: ImageFacts | None
    remembered: bool = False
    problem: VantageError | None = None

    def require(self) -> ImageFacts:
        """What is known.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE, nothing is.
        """
        if self.facts is not None:
            return self.facts
        raise self.problem or error(Reason.REGISTRY_UNAVAILABLE, "nothing is known of the image: ask its registry")


class ImageVerifier:
    """Verifies images against a policy.

    Args:
        policy: the node's.
        access: how each registry is reached.
        store: keeps evidence over restarts.
        clock: the time.
    """

    def __init__(self, policy: ImagePolicy, access: Access, store: EvidenceStore, clock: Clock) -> None:
        self.policy = policy
        self._access = access
        self._store = store
        self._clock = clock
        self._known: dict[tuple[str, str], ImageFacts] = {}

    async def verify(self, request: CodeRequest) -> Admission:
        """Verify that an image may run a function for the one who asks.

        Raises:
            InvalidArgumentError: IMAGE_NOT_BY_DIGEST.
            RefusedError: IMAGE_NOT_ALLOWED, IMAGE_REVOKED, POLICY_REFUSED, IMAGE_NOT_FOUND, IMAGE_TAMPERED,
                IMAGE_DECLARATION_INVALID, IMAGE_UNSIGNED, IMAGE_SIGNATURE_INVALID, IMAGE_SIGNATURES_TOO_FEW,
                IMAGE_KEY_REVOKED, IMAGE_KEY_EXPIRED, IMAGE_SIGNED_ELSEWHERE, IMAGE_ATTESTATION_MISSING.
            UnavailableError: REGISTRY_UNAVAILABLE.
        """
        case = self.case(request)  # 1
        _enforce(self.policy.judge(case))  # 2 to 6
        sight = await self.look(case)  # 7 to 9
        facts = sight.require()
        known = replace(case, facts=facts)
        verdict = self.policy.judge(known)  # 2 to 6 again, 10 to 12
        _enforce(verdict)
        signers = verdict.allowing[0].signed_by.signers(known)
        return Admission(VerifiedImage(facts.reference, facts.image_id, facts.declaration, signers), verdict.bounds)

    def case(self, request: CodeRequest) -> Case:
        """What is decided about, before anything is known of the image.

        Raises:
            InvalidArgumentError: IMAGE_NOT_BY_DIGEST.
        """
        return Case(request, ImageReference.parse(request.image), self._clock.now(), self.policy.revoked)

    async def look(self, case: Case, *, offline: bool = False, keep: bool = True) -> Sight:
        """Learn about an image: from what is remembered if that suffices, otherwise from its registry.

        Args:
            case: what is to be decided.
            offline: ask no registry.
            keep: remember what the registry says when it suffices.

        Raises:
            RefusedError: the registry has no such image, or other bytes; see ``verify``.
        """
        facts = self._known.get((str(case.reference), self.policy.version))
        if facts is None:
            facts = await asyncio.to_thread(self._load, case.reference)
        if offline or (facts is not None and self._suffices(case, facts)):
            return Sight(facts, remembered=facts is not None)
        try:
            found, evidence = await self._ask(case.reference)
        except UnavailableError as problem:
            # There may be newer signatures that cannot be seen now: what is known decides.
            log.warning("registry not reachable", extra={"image": str(case.reference), "known": facts is not None})
            return Sight(facts, remembered=facts is not None, problem=problem)
        if keep and self._suffices(case, found):
            self._remember(found)
            await asyncio.to_thread(self._store.save, evidence)
        return Sight(found)

    async def _ask(self, reference: ImageReference) -> tuple[ImageFacts, Evidence]:
        async with oci.connect(reference.registry, reference.path, self._access(reference.registry)) as registry:
            evidence = await read_evidence(registry, reference, self.policy.wanted)
        return await asyncio.to_thread(examine, evidence, self.policy.keys)

    def _load(self, reference: ImageReference) -> ImageFacts | None:
        evidence = self._store.load(reference)
        if evidence is None:
            return None
        try:
            facts, _evidence = examine(evidence, self.policy.keys)
        except VantageError as problem:
            log.warning("evidence on disk is refused", extra={"image": str(reference), "reason": problem.reason.name})
            return None
        self._remember(facts)
        return facts

    def _remember(self, facts: ImageFacts) -> None:
        if len(self._known) >= _MAX_CACHED:
            self._known.clear()
        self._known[str(facts.reference), self.policy.version] = facts

    def _suffices(self, case: Case, facts: ImageFacts) -> bool:
        return self.policy.judge(replace(case, facts=facts)).refusal is None


def _enforce(verdict: Verdict) -> None:
    if verdict.refusal is not None:
        raise verdict.refusal
