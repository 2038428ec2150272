"""What it costs to decide whether an image may run, once its evidence is here."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from scripts.benchlib.figures import Figure, at_most, milliseconds, percentile
from vantage.common import oci, pki
from vantage.common.clock import SystemClock
from vantage.common.image_signing import attach_statement, sign_image
from vantage.common.image_statements import Layout, build_bundle, build_statement
from vantage.node.argument_bounds import check_bounds
from vantage.node.images.rules import ImagePolicy
from vantage.node.images.store import EvidenceStore
from vantage.node.images.verifier import ImageVerifier
from vantage.node.sources import CodeRequest
from vantage.testing.declared import push_declaration
from vantage.testing.image_policy import write_policy
from vantage.testing.registry import Registry

_RUNS = 500
_STARTS = 50
_RULES = 20
_PROVENANCE = "https://slsa.dev/provenance/v1"
_USER = "organizations/dora/users/alice"
_GOAL = 0.005
_ARGUMENTS = json.dumps({"min_count": 20}).encode()


async def image_policy() -> list[Figure]:
    """Policy and verification of an image: for each run, for the first one after a start, and from the registry."""
    with tempfile.TemporaryDirectory(prefix="vantage-bench-") as name, Registry(Path(name) / "registry") as registry:
        directory = Path(name)
        keys = {each: pki.create_key() for each in ("author", "reviewer", "builder")}
        policy = _policy(directory, keys, registry.address)
        functions = {"summary": {"arguments": {"properties": {"min_count": {"type": "integer"}}}}}
        declaration = {"schema": 1, "functions": functions}
        image = await push_declaration(registry.address, "algorithms/summary", declaration)
        reference = oci.ImageReference.parse(image)
        async with oci.connect(reference.registry, reference.path, oci.RegistryAccess()) as connection:
            await sign_image(connection, reference, keys["author"], Layout.CLASSIC)
            await sign_image(connection, reference, keys["reviewer"], Layout.BUNDLE)
            manifest = await connection.manifest(reference.digest)
            assert manifest is not None
            bundle = build_bundle(keys["builder"], build_statement(reference, _PROVENANCE, {"filler": "x" * 10_000}))
            await attach_statement(connection, reference, manifest, bundle, _PROVENANCE)
        request = CodeRequest(image, "summary", "organizations/dora", _USER)
        asked = [await _seconds(_verifier(policy, directory / str(number)), request) for number in range(10)]
        verifier = _verifier(policy, directory / "0")
        await _seconds(verifier, request)
        runs = [await _seconds(verifier, request) for _ in range(_RUNS)]
        # Without the registry, as after a start of the node.
        registry.stop()
        starts = [await _seconds(_verifier(policy, directory / "0"), request) for _ in range(_STARTS)]
    return [
        _figure(f"policy of {_RULES} rules and 3 statements, for each run", runs, goal=True),
        _figure("the same for the first run after a start, from disk", starts, goal=True),
        _figure("the same for a new image, from its registry", asked, goal=False),
    ]


def _policy(directory: Path, keys: dict[str, ec.EllipticCurvePrivateKey], address: str) -> ImagePolicy:
    """The last of many rules is the one that counts, and it asks for everything that there is."""
    others = [{"repository": f"registry-{number}.example.org/**"} for number in range(_RULES - 1)]
    rule = {
        "repository": f"{address}/algorithms/*",
        "threshold": 2,
        "roles": {"reviewer": 1},
        "functions": ["summary"],
        "users": ["dora/alice"],
        "arguments": {"min_count": {"minimum": 10}},
        "attestations": [{"type": "provenance", "keys": ["builder"]}],
        "expires": "2100-01-01",
    }
    return write_policy(directory, keys, [*others, rule], about={"reviewer": {"role": "reviewer"}})


def _verifier(policy: ImagePolicy, directory: Path) -> ImageVerifier:
    return ImageVerifier(policy, lambda _registry: oci.RegistryAccess(), EvidenceStore(directory), SystemClock())


async def _seconds(verifier: ImageVerifier, request: CodeRequest) -> float:
    began = time.perf_counter()
    admission = await verifier.verify(request)
    function = admission.image.declaration.function(request.function)
    check_bounds(function, admission.bounds, _ARGUMENTS)
    return time.perf_counter() - began


def _figure(name: str, seconds: Sequence[float], *, goal: bool) -> Figure:
    middle = statistics.median(seconds)
    value = f"{milliseconds(middle)} (p99 {milliseconds(percentile(seconds, 99))})"
    return Figure(name, value, goal=at_most(_GOAL * 1000, middle * 1000, " ms") if goal else None)
