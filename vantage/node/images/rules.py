"""Rules of the node's policy about images, with their keys loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import cosign
from vantage.common.errors import Reason, error
from vantage.common.repository_patterns import matches
from vantage.node.config import ImageRule


@dataclass(frozen=True)
class TrustedKey:
    """A public key of the policy.

    Attributes:
        name: its file's name, for people.
        fingerprint: of the key itself: two files with one key count once.
    """

    name: str
    fingerprint: str
    key: ec.EllipticCurvePublicKey = field(compare=False)


@dataclass(frozen=True)
class Rule:
    """Images of matching repositories may run these functions when enough keys have signed them.

    Attributes:
        pattern: with ``*`` for any characters within a segment of the path and ``**`` for any.
        functions: names, or None for all.
    """

    pattern: str
    keys: tuple[TrustedKey, ...]
    threshold: int
    functions: frozenset[str] | None

    def matches(self, repository: str) -> bool:
        """Whether the rule is about a repository: the whole name, never a prefix."""
        return matches(self.pattern, repository)

    def allows(self, function: str) -> bool:
        """Whether the rule allows a function."""
        return self.functions is None or function in self.functions


def load_rules(rules: Iterable[ImageRule]) -> tuple[Rule, ...]:
    """Read the keys of the rules.

    Raises:
        VantageError: KEY_INVALID, or CONFIGURATION_INVALID when a threshold cannot be met.
    """
    loaded = []
    for rule in rules:
        keys = {}
        for path in rule.keys:
            try:
                key = cosign.load_public_key(path.read_bytes(), str(path))
            except OSError as problem:
                raise error(Reason.KEY_INVALID, f"cannot read {path}: {problem.strerror}", path=str(path)) from problem
            keys[cosign.key_fingerprint(key)] = TrustedKey(path.name, cosign.key_fingerprint(key), key)
        if rule.threshold > len(keys):
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"policy.images: {rule.repository} asks for {rule.threshold} signatures, but its files hold only "
                f"{len(keys)} different keys",
            )
        functions = None if rule.functions is None else frozenset(rule.functions)
        loaded.append(Rule(rule.repository, tuple(keys.values()), rule.threshold, functions))
    return tuple(loaded)


def describe(rules: Sequence[Rule]) -> str:
    """Repositories that the rules are about."""
    return ", ".join(sorted({rule.pattern for rule in rules})) or "none"
