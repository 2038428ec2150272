"""Our formats in another language, and the published test vectors of age."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.vectorlib.cast import ALICE, Cast
from vantage.common import orders, sealing
from vantage.common.bound_arguments import arguments_of
from vantage.common.dsse import digest_of
from vantage.common.errors import Reason, RefusedError, VantageError
from vantage.common.sealing import SealedPayload
from vantage.testing.signers import NOW, order

pytestmark = pytest.mark.nodejs

HERE = Path(__file__).parent
VECTORS = HERE.parent / "vectors"


def node(*arguments: str | Path, given: str = "") -> str:
    assert (HERE / "node_modules" / "age-encryption").is_dir(), "scripts/test tests/interop installs what it needs"
    done = subprocess.run(
        ["node", HERE / "formats.mjs", *arguments], input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cast() -> Cast:
    return Cast(json.loads((VECTORS / "keys.json").read_text("utf-8")))


def test_another_language_judges_every_vector_as_we_do() -> None:
    wanted = {
        each["name"]: each["verdict"]
        for path in VECTORS.glob("*-vectors.json")
        for each in json.loads(path.read_text("utf-8"))
    }
    assert {each.partition("/")[0] for each in wanted} == {"order", "result", "keys", "sealed"}
    assert json.loads(node("judge", VECTORS)) == wanted


def test_an_order_and_a_payload_of_another_language_are_taken(cast: Cast) -> None:
    alice, plaintext = cast.document["holders"][ALICE], '{"column": "größe"}'
    said = json.loads(
        node(
            "make",
            given=json.dumps(
                {
                    "key": alice["key"],
                    "chain": [alice["certificate"]],
                    "order": json.loads(order(ALICE).encode()),
                    "recipients": [cast.recipients["researcher"], cast.recipients["recovery"]],
                    "plaintext": plaintext,
                }
            ),
        )
    )
    verified = orders.verify_order(said["envelope"].encode(), (), cast.certify, NOW)
    sealed = base64.b64decode(said["sealed"])
    (target,) = verified.order.targets
    assert target.arguments is not None
    assert (target.arguments.digest, target.arguments.size) == (digest_of(sealed), len(sealed))
    for each in ("researcher", "recovery"):
        opened = sealing.unseal(SealedPayload(sealed), [cast.identities[each]])
        assert arguments_of(opened, ALICE).decode() == plaintext


def age_vectors() -> list[dict[str, Any]]:
    """Without armor, which we neither write nor read."""
    read: list[dict[str, Any]] = [json.loads(line) for line in node("age-vectors").splitlines()]
    return [each for each in read if "armored" not in each]


def test_published_vectors_of_age_open_or_are_refused_as_they_must_be() -> None:
    opened = refused = 0
    for vector in age_vectors():
        # Identities of other kinds than X25519 are not read.
        identities = [each for each in vector["identity"] if each.startswith("AGE-SECRET-KEY-1")]
        if not identities:
            continue
        sealed = base64.b64decode(vector["content"])
        target = io.BytesIO()
        if vector["expect"] == "success":
            sealing.unseal_stream(io.BytesIO(sealed), target, identities)
            content = sealing.unseal(SealedPayload(sealed), identities)
            assert content == target.getvalue(), vector["name"]
            assert hashlib.sha256(content).hexdigest() == vector["payload"], vector["name"]
            opened += 1
        else:
            with pytest.raises(RefusedError):
                sealing.unseal_stream(io.BytesIO(sealed), target, identities)
            with pytest.raises(RefusedError):
                sealing.unseal(SealedPayload(sealed), identities)
            refused += 1
    assert opened >= 10
    assert refused >= 50


def test_published_vectors_of_age_with_a_passphrase_open_or_are_refused_as_they_must_be() -> None:
    expected = {"success": [], "no match": [Reason.KEY_INVALID], "header failure": [Reason.SEAL_INVALID]}
    seen = []
    for vector in age_vectors():
        if "passphrase" not in vector:
            continue
        reasons = []
        try:
            content = sealing.unseal_with_passphrase(base64.b64decode(vector["content"]), vector["passphrase"].encode())
            assert hashlib.sha256(content).hexdigest() == vector["payload"]
        except VantageError as problem:
            reasons.append(problem.reason)
        assert reasons == expected[vector["expect"]], vector["name"]
        seen.append(vector["expect"])
    assert set(seen) == set(expected)
    assert len(seen) >= 20
