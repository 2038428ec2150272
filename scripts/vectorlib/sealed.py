"""Vectors of sealed payloads."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from scripts.vectorlib.cast import ALICE, BOB, Cast
from vantage.common import dsse, sealing
from vantage.common.bound_arguments import arguments_of, line_of
from vantage.common.errors import VantageError
from vantage.common.sealing import SealedPayload

_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Sealed:
    """One vector.

    Attributes:
        name: of the vector.
        about: what it shows.
        content: what is sealed.
        recipients: names of identities that it is sealed to.
        opener: whose identity is tried.
        damage: what happens to it on the way.
        because: part of the message of the refusal; not stored.
        sealed_for: for arguments: the requester whom they name.
        requester: for arguments: the requester of the order that they come with.
    """

    name: str
    about: str
    content: bytes
    recipients: tuple[str, ...] = ("researcher",)
    opener: str = "researcher"
    damage: Callable[[bytes], bytes] | None = None
    because: str = ""
    sealed_for: str = ""
    requester: str = ""

    def make(self, cast: Cast) -> dict[str, Any]:
        """The vector as it is stored; its header is another each time."""
        lead = line_of(self.sealed_for) if self.sealed_for else b""
        sealed = sealing.seal(lead + self.content, [cast.recipients[each] for each in self.recipients]).content
        return self._frame() | {"sealed": base64.b64encode(self.damage(sealed) if self.damage else sealed).decode()}

    def drift(self, cast: Cast, stored: dict[str, Any]) -> str | None:
        """What is wrong with a stored vector; None when it is still right."""
        if {name: value for name, value in stored.items() if name != "sealed"} != self._frame():
            return "what is said of it differs from what would be said today"
        sealed = SealedPayload(base64.b64decode(stored["sealed"], validate=True))
        try:
            opened = sealing.unseal(sealed, [cast.identities[self.opener]])
            if self.requester:
                opened = arguments_of(opened, self.requester)
        except VantageError as problem:
            if not self.because or self.because not in problem.message:
                return f"it is refused with {problem}"
            return None
        if self.because:
            return "it is not refused"
        return None if opened == self.content else "it holds something else"

    def _frame(self) -> dict[str, Any]:
        requester = {"requester": self.requester} if self.requester else {}
        return {
            "name": self.name,
            "about": self.about,
            "recipients": list(self.recipients),
            "opener": self.opener,
            "size": len(self.content),
            "digest": dsse.digest_of(self.content),
            "verdict": "SEAL_INVALID" if self.because else "valid",
        } | requester


def vectors() -> Iterator[Sealed]:
    """All of them."""
    small = b'{"column": "age"}'
    large = bytes(each % 251 for each in range(_CHUNK + 1))
    yield Sealed("sealed/valid", "JSON for one recipient", small)
    yield Sealed("sealed/empty", "nothing is something too", b"")
    yield Sealed("sealed/second-recipient", "each recipient opens it", small, ("researcher", "recovery"), "recovery")
    yield Sealed("sealed/two-chunks", "one byte more than a chunk of 64 KiB", large)
    yield Sealed(
        "sealed/other-key", "sealed to somebody else", small, ("recovery",), "somebody-else", because="other keys"
    )
    cut = "changed or cut"
    yield Sealed(
        "sealed/altered", "a bit was changed", small, damage=lambda it: it[:-1] + bytes([it[-1] ^ 1]), because=cut
    )
    yield Sealed("sealed/cut", "cut at the border of a chunk", large, damage=lambda it: it[: -(1 + 16)], because=cut)
    yield Sealed(
        "sealed/unknown-version",
        "a version that the reader does not know",
        small,
        damage=lambda it: it.replace(b"age-encryption.org/v1", b"age-encryption.org/v2", 1),
        because="format is not known",
    )
    yield Sealed("sealed/arguments", "arguments for an order of alice", small, sealed_for=ALICE, requester=ALICE)
    yield Sealed(
        "sealed/arguments-of-somebody-else",
        "arguments that alice has sealed, in an order of bob",
        small,
        sealed_for=ALICE,
        requester=BOB,
        because="somebody else",
    )
    yield Sealed(
        "sealed/arguments-without-requester",
        "arguments that do not say for whose order they are",
        small,
        requester=ALICE,
        because="do not say",
    )
