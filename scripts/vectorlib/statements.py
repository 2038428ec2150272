"""The vectors of orders, results and lists of keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from scripts.vectorlib.cast import ALICE, BOB, NODE, OTHER_NODE, STRANGER, Cast
from scripts.vectorlib.signed import Envelope, Signed
from vantage.common import dsse
from vantage.common.errors import Reason
from vantage.common.statements import (
    Content,
    Delegation,
    KeyBundle,
    Order,
    OrderTarget,
    Parent,
    ResultFailure,
    ResultStatement,
    Statement,
)
from vantage.testing.signers import DIGEST, NOW, order

RUN = "tasks/0190d6a0-0000-7000-8000-000000000002/runs/0190d6a0-0000-7000-8000-000000000003"
INVALID, EXCEEDS = Reason.ORDER_INVALID, Reason.ORDER_EXCEEDS_PARENT


def vectors(cast: Cast) -> Iterator[Signed]:
    """All of them."""
    yield from _orders(cast)
    yield from _subtasks(cast)
    yield from _results()
    yield from _keys(cast)


def _by(key: str, statement: Statement, **changes: Any) -> Envelope:
    return Envelope(type(statement).payload_type(), statement.encode(), key, **changes)


def _with(statement: Statement, **fields: Any) -> bytes:
    """The bytes of a statement with other or more fields, as nobody here would write them."""
    return json.dumps(json.loads(statement.encode()) | fields, separators=(",", ":")).encode()


def _order(cast: Cast, **changes: Any) -> Order:
    fields = {"recipients": (cast.recipients["researcher"], cast.recipients["recovery"]), "max_runtime": 600}
    return order(ALICE, **(fields | changes))


def _orders(cast: Cast) -> Iterator[Signed]:
    plain = _order(cast)
    yield Signed("order/valid", "a task of a user for one organization", _by(ALICE, plain))
    least = _order(cast, delegation=None, max_runtime=None, targets=(OrderTarget(organization="organizations/clara"),))
    yield Signed("order/least", "fields that are absent are left out", _by(ALICE, least))
    text = _order(cast, function="mittel_größe", study="studies/über-50")
    yield Signed("order/text", "text beyond ASCII is UTF-8", _by(ALICE, text))
    yield Signed(
        "order/altered",
        "the function was changed after signing",
        _by(ALICE, plain, shown=_order(cast, function="other").encode()),
        verdict=INVALID,
        because="not signed with the key",
    )
    yield Signed(
        "order/unknown-field",
        "a signed field that the reader does not know",
        Envelope(Order.payload_type(), _with(plain, priority=1), ALICE),
        verdict=INVALID,
        because="priority",
    )
    yield Signed(
        "order/unknown-version",
        "a schema that the reader does not know",
        Envelope(Order.payload_type(), _with(plain, schema="vantage.order/2"), ALICE),
        verdict=INVALID,
        because="this version knows",
    )
    yield Signed(
        "order/other-signer",
        "bob signs an order that speaks for alice",
        _by(BOB, plain),
        verdict=INVALID,
        because="speaks for",
    )
    yield Signed(
        "order/borrowed-certificate",
        "signed with bob's key, shown with alice's certificate",
        _by(BOB, plain, chain=ALICE),
        verdict=INVALID,
        because="not signed with the key",
    )
    yield Signed(
        "order/untrusted-signer",
        "the signer's authority is not trusted",
        _by(STRANGER, order(STRANGER)),
        verdict=Reason.CERTIFICATE_UNTRUSTED,
    )
    yield Signed(
        "order/expired",
        "checked after its time",
        _by(ALICE, plain),
        at=NOW + timedelta(hours=1),
        verdict=Reason.ORDER_EXPIRED,
        because="it expired",
    )
    yield Signed(
        "order/early",
        "signed more than two minutes in the future",
        _by(ALICE, plain),
        at=NOW - timedelta(minutes=3),
        verdict=Reason.ORDER_EXPIRED,
        because="in the future",
    )
    yield Signed(
        "order/too-long",
        "valid for more than 31 days",
        _by(ALICE, _order(cast, expires=NOW + timedelta(days=32))),
        verdict=INVALID,
        because="at most 31 days",
    )
    yield Signed(
        "order/other-type",
        "signed as a result, shown as an order",
        Envelope(ResultStatement.payload_type(), plain.encode(), ALICE, shown_kind=Order.payload_type()),
        verdict=INVALID,
        because="not signed with the key",
    )
    yield Signed(
        "order/two-signatures",
        "an envelope has one signature",
        _by(ALICE, plain, signatures=2),
        verdict=INVALID,
        because="one signature",
    )


def _subtasks(cast: Cast) -> Iterator[Signed]:
    above = _order(cast)
    root = _by(ALICE, above)

    def below(**changes: Any) -> Order:
        fields = {
            "requester": NODE,
            "id": "0190d6a0-0000-7000-8000-000000000009",
            "function": "partial",
            "parent": Parent(order=dsse.digest_of(above.encode()), run=RUN),
            "delegation": None,
        }
        return _order(cast).model_copy(update=fields | changes)

    yield Signed("order/subtask", "a node asks in the name of the order it runs", _by(NODE, below()), (root,))
    wider = above.delegation
    assert wider is not None
    beyond: dict[str, tuple[str, dict[str, Any], str]] = {
        "subtask-function": ("a function that is not delegated", {"function": "summary"}, "is not delegated"),
        "subtask-organization": (
            "an organization that may not be asked",
            {"targets": (OrderTarget(organization="organizations/mallory"),)},
            "may not be asked",
        ),
        "subtask-dataset": (
            "a dataset that is not delegated",
            {"targets": (OrderTarget(organization="organizations/dora", datasets={"table": "liver"}),)},
            "is not delegated",
        ),
        "subtask-image": ("another image", {"image": above.image.replace("ab", "ba")}, "must be those"),
        "subtask-expiry": (
            "it outlives the order above it",
            {"expires": above.expires + timedelta(seconds=1)},
            "expires later",
        ),
        "subtask-runtime": ("its runs may take longer", {"max_runtime": 601}, "may take longer"),
        "subtask-any-runtime": ("its runs may take any time", {"max_runtime": None}, "may take longer"),
        "subtask-delegation": ("it delegates as deep as it was given", {"delegation": wider}, "delegates more"),
    }
    for name, (about, changes, because) in beyond.items():
        yield Signed(f"order/{name}", about, _by(NODE, below(**changes)), (root,), verdict=EXCEEDS, because=because)
    narrower = Delegation(
        organizations=("organizations/dora",), functions=("partial",), datasets=("lung",), max_tasks=5, max_depth=1
    )
    yield Signed(
        "order/subtask-narrower", "it delegates less than it was given", _by(NODE, below(delegation=narrower)), (root,)
    )
    yield Signed(
        "order/subtask-not-allowed",
        "the order above it delegates nothing",
        _by(
            NODE,
            below(parent=Parent(order=dsse.digest_of(_order(cast, delegation=None).encode()), run=RUN)),
        ),
        (_by(ALICE, _order(cast, delegation=None)),),
        verdict=EXCEEDS,
        because="allows no subtasks",
    )
    yield Signed(
        "order/subtask-of-another",
        "it names another order than the one above it",
        _by(NODE, below(parent=Parent(order=DIGEST, run=RUN))),
        (root,),
        verdict=INVALID,
        because="does not name the order above it",
    )
    yield Signed(
        "order/subtask-at-the-top",
        "an order of a node without the one above it",
        _by(NODE, below()),
        verdict=INVALID,
        because="at the top",
    )


def _results() -> Iterator[Signed]:
    given: dict[str, Any] = {
        "order": "sha256:" + "0d" * 32,
        "run": RUN,
        "organization": "organizations/clara",
        "node": NODE,
        "digest": DIGEST,
    }
    finished = NOW + timedelta(minutes=5)
    content = Content(digest=DIGEST, size=308, media_type="application/json")

    def result(**changes: Any) -> ResultStatement:
        fields = {
            "order": given["order"],
            "run": RUN,
            "node": NODE,
            "outcome": "succeeded",
            "result": content,
            "finished": finished,
        }
        return ResultStatement.model_validate(fields | changes)

    failure = ResultFailure(reason="ALGORITHM_FAILED", message="too few records")
    answer = _by(NODE, result())
    yield Signed("result/succeeded", "an answer", answer, given=given)
    yield Signed("result/any-node", "the order asks any node", answer, given=given | {"node": ""})
    yield Signed(
        "result/failed",
        "no answer, and why",
        _by(NODE, result(outcome="failed", result=None, failure=failure)),
        given=given | {"digest": None},
    )
    wrong = {
        "other-order": ("it answers another order", answer, {"order": DIGEST}, "another order"),
        "other-run": ("it is of another run", answer, {"run": RUN[:-1] + "4"}, "is the result of"),
        "other-bytes": ("the bytes are not those", answer, {"digest": given["order"]}, "bytes that arrived"),
        "other-organization": (
            "another organization was asked",
            answer,
            {"organization": "organizations/dora", "node": ""},
            "was not asked",
        ),
        "other-node": ("another node was asked", answer, {"node": OTHER_NODE}, "was not asked"),
        "other-signer": ("another node signed it", _by(OTHER_NODE, result()), {}, "is signed by"),
        "altered": (
            "the outcome was changed after signing",
            _by(NODE, result(), shown=result(outcome="failed", result=None, failure=failure).encode()),
            {"digest": None},
            "not signed with the key",
        ),
        "contradiction": (
            "succeeded, and a failure",
            _by(NODE, result(failure=failure)),
            {},
            "contradicts",
        ),
        "unknown-field": (
            "a signed field that the reader does not know",
            Envelope(ResultStatement.payload_type(), _with(result(), score=1), NODE),
            {},
            "score",
        ),
    }
    for name, (about, envelope, changes, because) in wrong.items():
        yield Signed(
            f"result/{name}",
            about,
            envelope,
            given=given | changes,
            verdict=Reason.RESULT_UNVERIFIED,
            because=because,
        )


def _keys(cast: Cast) -> Iterator[Signed]:
    recipients = (cast.recipients["researcher"], cast.recipients["recovery"])

    def keys(**changes: Any) -> KeyBundle:
        fields = {
            "holder": ALICE,
            "version": 3,
            "recipients": recipients,
            "created": NOW,
            "expires": NOW + timedelta(days=365),
        }
        return KeyBundle.model_validate(fields | changes)

    given: dict[str, Any] = {"holder": ALICE, "seen_version": 3}
    invalid, stale = Reason.KEYS_INVALID, Reason.KEYS_STALE
    yield Signed("keys/valid", "a list of keys", _by(ALICE, keys()), given=given)
    wrong = {
        "older": ("a version below one that was seen", _by(ALICE, keys(version=2)), stale, "old list"),
        "expired": (
            "its time is over",
            _by(ALICE, keys(created=NOW - timedelta(days=9), expires=NOW)),
            stale,
            "expired",
        ),
        "other-holder": ("keys of another holder", _by(BOB, keys(holder=BOB)), invalid, "was asked for"),
        "other-signer": ("somebody else signed it", _by(BOB, keys()), invalid, "signed by"),
        "no-age-key": ("a recipient that is none", _by(ALICE, keys(recipients=("age1oops",))), invalid, "not an age"),
        "too-long": ("valid for more than 400 days", _by(ALICE, keys(expires=NOW + timedelta(days=401))), invalid, ""),
        "unknown-field": (
            "a signed field that the reader does not know",
            Envelope(KeyBundle.payload_type(), _with(keys(), comment="x"), ALICE),
            INVALID,
            "comment",
        ),
    }
    for name, (about, envelope, reason, because) in wrong.items():
        yield Signed(f"keys/{name}", about, envelope, given=given, verdict=reason, because=because)
