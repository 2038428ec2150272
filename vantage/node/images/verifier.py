"""Verifies images: the one place that builds ``VerifiedImage``, and executors accept nothing else.

The checks, in order; the code repeats the numbers.

1. The image is named by digest; a tag, also beside a digest, is refused.
2. A rule of the policy is about the whole name of its repository and allows the function.
3. The manifest has that digest, and is that of one image, not an index.
4. The signatures are those stored under the image's own signature tag, and the bundles that refer to it; each has the
   digest that its manifest says.
5. A signature is of cosign's type and speaks of this very digest: a signature of another image is none.
6. The signature over the bytes as stored verifies under a key of the rule; different keys are counted, and they reach
   the rule's threshold.
7. The config, which holds the declaration, has the digest that the manifest says. Its digest is the image's id, by
   which the container is created (8, in the puller: the engine has exactly that id after a pull).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vantage.common import oci
from vantage.common.declaration import LABEL, Declaration
from vantage.common.errors import Reason, error
from vantage.common.image_signing import Found, read_statements, unsigned
from vantage.common.image_statements import SIGNATURE
from vantage.node.images.rules import Rule, describe

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

    reference: oci.ImageReference
    image_id: str
    declaration: Declaration
    signers: tuple[str, ...]


@dataclass(frozen=True)
class _Examined:
    """What the registry told about an image: true for ever, since all of it hangs on the digest."""

    image_id: str
    declaration: Declaration


class ImageVerifier:
    """Verifies images against a policy.

    Args:
        rules: of the policy.
        access: how each registry is reached.
    """

    def __init__(self, rules: tuple[Rule, ...], access: Access) -> None:
        self._rules = rules
        self._access = access
        # An image that was verified stays so while the rules are the same, which they are for the life of a process.
        self._verified: dict[tuple[str, Rule], VerifiedImage] = {}

    async def verify(self, image: str, function: str) -> VerifiedImage:
        """Verify that an image may run a function.

        Raises:
            InvalidArgumentError: IMAGE_NOT_BY_DIGEST.
            RefusedError: IMAGE_NOT_ALLOWED, IMAGE_NOT_FOUND, IMAGE_UNSIGNED, IMAGE_SIGNATURE_INVALID, IMAGE_TAMPERED,
                IMAGE_DECLARATION_INVALID.
            UnavailableError: REGISTRY_UNAVAILABLE.
        """
        reference = oci.ImageReference.parse(image)  # 1
        rules = self._applicable(reference, function)  # 2
        for rule in rules:
            if (known := self._verified.get((str(reference), rule))) is not None:
                return known
        async with oci.connect(reference.registry, reference.path, self._access(reference.registry)) as registry:
            manifest = await _manifest(registry, reference)  # 3
            found = await read_statements(registry, reference)  # 4, 5
            rule, signers = _choose(rules, found, reference)  # 6
            examined = await _config(registry, manifest, reference)  # 7
        verified = VerifiedImage(reference, examined.image_id, examined.declaration, signers)
        if len(self._verified) >= _MAX_CACHED:
            self._verified.clear()
        self._verified[str(reference), rule] = verified
        return verified

    def _applicable(self, reference: oci.ImageReference, function: str) -> list[Rule]:
        about = [rule for rule in self._rules if rule.matches(reference.repository)]
        if not about:
            raise error(
                Reason.IMAGE_NOT_ALLOWED,
                f"the node's policy does not allow images of {reference.repository}; it allows those of "
                f"{describe(self._rules)}: ask its admin",
                repository=reference.repository,
            )
        allowing = [rule for rule in about if rule.allows(function)]
        if not allowing:
            names = sorted(set().union(*(rule.functions or () for rule in about)))
            raise error(
                Reason.IMAGE_NOT_ALLOWED,
                f"the node's policy does not allow the function {function[:100]!r} of {reference.repository}; it "
                f"allows {', '.join(names)}: ask its admin",
                repository=reference.repository,
                function=function[:100],
            )
        return allowing


async def _manifest(registry: oci.Registry, reference: oci.ImageReference) -> dict[str, Any]:
    found = await registry.manifest(reference.digest)
    if found is None:
        raise error(
            Reason.IMAGE_NOT_FOUND,
            f"the registry has no image {reference}: push it, or correct the digest",
            image=str(reference),
        )
    _content, document = found
    if document.get("mediaType") in oci.INDEX_TYPES or "manifests" in document:
        raise error(
            Reason.IMAGE_NOT_ALLOWED,
            f"{reference} is an index of several platforms: name and sign the image of one platform",
            image=str(reference),
        )
    return document


def _choose(rules: list[Rule], found: Found, reference: oci.ImageReference) -> tuple[Rule, tuple[str, ...]]:
    """The first rule whose threshold is reached, and who signed."""
    if not found.statements and not found.unusable:
        raise unsigned(reference)
    about = [each for each in found.statements if each.predicate == SIGNATURE and each.is_about(reference)]  # 5
    other = len(found.statements) - len(about) + found.unusable
    best, wanted = 0, 1
    for rule in rules:
        signers = {key.fingerprint: key.name for key in rule.keys for each in about if each.is_by(key.key)}
        if len(signers) >= rule.threshold:
            return rule, tuple(sorted(signers.values()))
        if len(signers) >= best:
            best, wanted = len(signers), rule.threshold
    if not about:
        why = f"{other or 'no'} signatures lie with it, none is about this image"
    elif best == 0:
        why = f"none of its {len(about)} signatures is by a key that the node trusts"
    else:
        why = f"{best} of the {wanted} keys that the node asks for have signed it"
    raise error(
        Reason.IMAGE_SIGNATURE_INVALID,
        f"the image {reference} may not run: {why}: ask its author to sign it, or the node's admin to trust the key",
        image=str(reference),
    )


async def _config(registry: oci.Registry, manifest: dict[str, Any], reference: oci.ImageReference) -> _Examined:
    descriptor = manifest.get("config")
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    content = await registry.blob(str(digest))
    try:
        document = json.loads(content or b"null")
        labels = (document["config"].get("Labels") or {}) if isinstance(document, dict) else None
        label = labels.get(LABEL) if isinstance(labels, dict) else None
    except (ValueError, KeyError, AttributeError, RecursionError):
        document, label = None, None
    if document is None:
        raise error(
            Reason.IMAGE_TAMPERED, f"the registry has no usable configuration of {reference}", image=str(reference)
        )
    if not isinstance(label, str):
        raise error(
            Reason.IMAGE_DECLARATION_INVALID,
            f"the image {reference} has no label {LABEL}: its author builds it with 'vantage algorithm'",
            image=str(reference),
        )
    return _Examined(str(digest), Declaration.parse(label))
