"""Signed results and signed lists of keys: how nodes and users are believed without believing the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import dsse, names, sealing
from vantage.common.dsse import Certify
from vantage.common.errors import Reason, VantageError, error
from vantage.common.statements import KeyBundle, ResultStatement

KEYS_LIFETIME = timedelta(days=400)
LEEWAY = timedelta(minutes=2)


@dataclass(frozen=True)
class SignedResult:
    """How a run ended, in the words of its node, before its bytes were seen; only ``verify_statement`` builds it."""

    statement: ResultStatement
    node: str
    organization: str


@dataclass(frozen=True)
class VerifiedResult:
    """How a run ended, in the words of its node; only ``verify_result`` and ``verify_bytes`` build it."""

    statement: ResultStatement
    node: str
    organization: str


@dataclass(frozen=True)
class VerifiedKeys:
    """To which recipients payloads for somebody are sealed; only ``verify_keys`` builds it."""

    holder: str
    version: int
    recipients: tuple[str, ...]
    expires: datetime


def sign_result(
    statement: ResultStatement, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]
) -> bytes:
    """The envelope of a result, signed by the node."""
    return dsse.sign(ResultStatement.payload_type(), statement.encode(), key, chain)


def sign_keys(bundle: KeyBundle, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]) -> bytes:
    """The envelope of a list of keys, signed by their holder."""
    return dsse.sign(KeyBundle.payload_type(), bundle.encode(), key, chain)


def verify_result(
    envelope: bytes,
    certify: Certify,
    *,
    order: str,
    run: str,
    organization: str,
    node: str,
    digest: str | None,
    asked: datetime,
) -> VerifiedResult:
    """Verify that a result is what the node that was asked has signed for this order.

    Args:
        envelope: see ``verify_statement``, as for the others.
        certify: see there.
        order: see there.
        run: see there.
        organization: see there.
        node: see there.
        digest: see ``verify_bytes``.
        asked: see ``verify_statement``.

    Raises:
        TrustError: RESULT_UNVERIFIED, with the check that failed.
    """
    signed = verify_statement(
        envelope, certify, order=order, run=run, organization=organization, node=node, asked=asked
    )
    return verify_bytes(signed, digest)


def verify_statement(
    envelope: bytes,
    certify: Certify,
    *,
    order: str,
    run: str,
    organization: str,
    node: str,
    asked: datetime,
) -> SignedResult:
    """Verify what can be verified of a result before its bytes are there.

    The checks, in order: (1) type, form, signature, and a chain that was valid when the run finished, (2) the schema,
    (3) the signer is the node that the statement names, of the organization that was asked, and the node itself if one
    was chosen, (4) it answers this order, and was not signed before that one was, (5) for this run, (6) outcome,
    result and failure fit together. ``verify_bytes`` is the last one.

    Args:
        envelope: what the server delivers.
        certify: see ``dsse.Certify``.
        order: digest of the order that was signed.
        run: resource name of the run.
        organization: whom the order asks.
        node: which node it asks, or "".
        asked: when the order was signed. Who has the key of a certificate that ended long ago could otherwise name a
            moment at which it counted.

    Raises:
        TrustError: RESULT_UNVERIFIED, with the check that failed.
    """
    # (1) The time of signing is in the statement, which the signature covers: read it first, believe it afterwards.
    try:
        finished = ResultStatement.decode(dsse.peek(envelope)).finished
        signed = dsse.verify(envelope, ResultStatement.payload_type(), certify, finished)
        # (2)
        statement = ResultStatement.decode(signed.payload)
    except VantageError as problem:
        raise _unverified(problem.message) from problem
    # (3)
    if statement.node != signed.signer.name or not names.is_valid(statement.node, "organizations/nodes"):
        raise _unverified(f"it names {statement.node!r} and is signed by {signed.signer.name!r}")
    if signed.signer.organization != organization or node not in ("", statement.node):
        raise _unverified(f"it is signed by {statement.node}, which was not asked: {node or organization} was")
    # (4)
    if statement.order != order:
        raise _unverified("it answers another order")
    if statement.finished < asked - LEEWAY:
        raise _unverified(f"it was signed before the order, at {statement.finished:%Y-%m-%d %H:%M:%S} UTC")
    # (5)
    if statement.run != run:
        raise _unverified(f"it is the result of {statement.run}")
    # (6)
    succeeded = statement.outcome == "succeeded"
    if (statement.result is not None) != succeeded or (statement.failure is not None) == succeeded:
        raise _unverified("its outcome contradicts its content")
    return SignedResult(statement, statement.node, signed.signer.organization)


def verify_bytes(signed: SignedResult, digest: str | None) -> VerifiedResult:
    """Verify (7) that the bytes of a result are those that its node has signed.

    Args:
        signed: all else was verified.
        digest: of the bytes as transported; None when there are none.

    Raises:
        TrustError: RESULT_UNVERIFIED.
    """
    result = signed.statement.result
    if digest != (result.digest if result is not None else None):
        raise _unverified("the bytes that arrived are not those that the node has signed")
    return VerifiedResult(signed.statement, signed.node, signed.organization)


def verify_keys(envelope: bytes, certify: Certify, holder: str, at: datetime, *, seen_version: int = 0) -> VerifiedKeys:
    """Verify a list of keys.

    The checks, in order: (1) type, form, signature and a chain that is valid now, (2) the schema, (3) the signer is
    the holder who was asked for, (4) the times, (5) the version is not older than one that was seen: an old list could
    hold a key that was withdrawn, (6) the recipients are age recipients.

    Raises:
        RefusedError: KEYS_INVALID or KEYS_STALE.
        PermissionDeniedError: whatever ``certify`` raises.
    """
    # (1)
    signed = dsse.verify(envelope, KeyBundle.payload_type(), certify, at)
    # (2)
    bundle = KeyBundle.decode(signed.payload)
    # (3)
    if bundle.holder != signed.signer.name or bundle.holder != holder:
        raise _keys(f"they are of {bundle.holder!r}, signed by {signed.signer.name!r}, and {holder!r} was asked for")
    # (4)
    if bundle.created > at + LEEWAY or bundle.expires - bundle.created > KEYS_LIFETIME:
        raise _keys("their times are not plausible: check the clocks")
    if bundle.expires <= at:
        raise error(
            Reason.KEYS_STALE,
            f"the keys of {holder} expired at {bundle.expires:%Y-%m-%d}: the holder publishes new ones",
        )
    # (5)
    if bundle.version < seen_version:
        raise error(
            Reason.KEYS_STALE,
            f"the keys of {holder} have version {bundle.version}, and version {seen_version} was seen before: the "
            "server delivers an old list",
        )
    # (6)
    try:
        recipients = tuple(sealing.check_recipient(each) for each in bundle.recipients)
    except VantageError as problem:
        raise _keys(problem.message) from problem
    return VerifiedKeys(holder, bundle.version, recipients, bundle.expires)


def _unverified(why: str) -> VantageError:
    return error(Reason.RESULT_UNVERIFIED, f"the result is not to be trusted: {why}")


def _keys(why: str) -> VantageError:
    return error(Reason.KEYS_INVALID, f"a list of keys is not valid: {why}")
