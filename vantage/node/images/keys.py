"""The keys of the policy, loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import cosign
from vantage.common.errors import Reason, error
from vantage.node.image_sections import KeySection


@dataclass(frozen=True)
class TrustedKey:
    """A public key of the policy.

    Attributes:
        name: for people: as the policy calls it, or its file's name.
        fingerprint: of the key itself: two names of one key count once.
        role: what its holder answers for, if the policy says so.
        expires: from this day on (UTC) its signatures do not count.
    """

    name: str
    fingerprint: str
    key: ec.EllipticCurvePublicKey = field(compare=False, repr=False)
    role: str | None = None
    expires: date | None = None

    def has_expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return is_over(self.expires, now)


def is_over(expires: date | None, now: datetime) -> bool:
    """Whether a day on which something ends has begun."""
    return expires is not None and now.astimezone(UTC).date() >= expires


def load_keys(sections: Mapping[str, KeySection]) -> dict[str, TrustedKey]:
    """Read the keys, by their names in the configuration.

    Raises:
        InvalidArgumentError: KEY_INVALID, a file is not readable or holds no ECDSA P-256 key.
    """
    loaded = {}
    for name, section in sections.items():
        path = section.file
        try:
            key = cosign.load_public_key(path.read_bytes(), str(path))
        except OSError as problem:
            raise error(Reason.KEY_INVALID, f"cannot read {path}: {problem.strerror}", path=str(path)) from problem
        # What rules name by file is called by it, however long the way there is.
        shown = path.name if path.name == name.rpartition("/")[2] else name
        loaded[name] = TrustedKey(shown, cosign.key_fingerprint(key), key, section.role, section.expires)
    return loaded
