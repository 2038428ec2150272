"""Vectors of signed statements: which there are, how they are made, and whether a stored one is still right."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from scripts.vectorlib.cast import Cast
from vantage.common import attestation, dsse, orders
from vantage.common.errors import Reason, VantageError
from vantage.testing.signers import NOW


@dataclass(frozen=True)
class Envelope:
    """How an envelope is made.

    Attributes:
        kind: payload type that is signed.
        payload: bytes that are signed.
        key: whose key signs.
        chain: whose certificate is shown; that of the key unless said otherwise.
        shown: payload in the envelope, when it is changed after signing.
        shown_kind: payload type in the envelope, when it is changed after signing.
        signatures: how often the signature stands there.
    """

    kind: str
    payload: bytes
    key: str
    chain: str = ""
    shown: bytes | None = None
    shown_kind: str = ""
    signatures: int = 1

    def make(self, cast: Cast) -> str:
        """A new envelope; its signature is another each time."""
        holder = cast.holders[self.key]
        chain = cast.holders[self.chain or self.key].chain
        document = json.loads(dsse.sign(self.kind, self.payload, holder.key, chain))
        document["payloadType"] = self.shown_kind or self.kind
        document["payload"] = base64.b64encode(self.shown or self.payload).decode()
        document["signatures"] *= self.signatures
        return json.dumps(document, separators=(",", ":"))

    def drift(self, cast: Cast, stored: str) -> str | None:
        """In what a stored envelope differs from this, signatures aside."""
        wanted, found = json.loads(self.make(cast)), json.loads(stored)
        for document in (wanted, found):
            for each in document["signatures"]:
                del each["sig"]
        return None if wanted == found else "the envelope is not what would be signed today"


@dataclass(frozen=True)
class Signed:
    """One vector.

    Attributes:
        name: of the vector.
        about: what it shows.
        envelope: what is verified.
        parents: envelopes above it, root first.
        given: what the verifier is told beside the envelope.
        verdict: "valid", or the reason of the refusal.
        because: part of the message of the refusal; not stored, other clients have their own words.
        at: moment of the check.
    """

    name: str
    about: str
    envelope: Envelope
    parents: tuple[Envelope, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    verdict: Reason | None = None
    because: str = ""
    at: datetime = NOW + timedelta(minutes=1)

    def make(self, cast: Cast) -> dict[str, Any]:
        """The vector as it is stored."""
        return self._frame() | {
            "parents": [each.make(cast) for each in self.parents],
            "envelope": self.envelope.make(cast),
        }

    def drift(self, cast: Cast, stored: dict[str, Any]) -> str | None:
        """What is wrong with a stored vector; None when it is still right."""
        rest = {name: value for name, value in stored.items() if name not in ("parents", "envelope")}
        if rest != self._frame():
            return "what is said of it differs from what would be said today"
        made = [*self.parents, self.envelope]
        found = [*stored["parents"], stored["envelope"]]
        if len(made) != len(found):
            return "it has another number of parents"
        for envelope, text in zip(made, found, strict=True):
            if (difference := envelope.drift(cast, text)) is not None:
                return difference
        return self._judge(cast, *(each.encode() for each in found))

    def _frame(self) -> dict[str, Any]:
        payload = self.envelope.shown or self.envelope.payload
        return {
            "name": self.name,
            "about": self.about,
            "at": self.at.isoformat().replace("+00:00", "Z"),
            "given": dict(self.given),
            "payload": payload.decode(),
            "digest": dsse.digest_of(payload),
            "verdict": "valid" if self.verdict is None else self.verdict.name,
        }

    def _judge(self, cast: Cast, *envelopes: bytes) -> str | None:
        *parents, envelope = envelopes
        kind = self.name.partition("/")[0]
        try:
            match kind:
                case "order":
                    orders.verify_order(envelope, parents, cast.certify, self.at)
                case "result":
                    attestation.verify_result(envelope, cast.certify, asked=self.at, **self.given)
                case "keys":
                    attestation.verify_keys(envelope, cast.certify, at=self.at, **self.given)
                case _:
                    raise AssertionError(kind)
        except VantageError as problem:
            if problem.reason is not self.verdict or self.because not in problem.message:
                return f"it is refused with {problem}"
            return None
        return None if self.verdict is None else "it is not refused"
