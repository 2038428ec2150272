"""``vantage image attest``: say something about an image, signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.images import image, key_password
from vantage.client.cli.registries import access, registry_options, require_registry


@command(
    image,
    "attest",
    "vantage image attest IMAGE --type spdx --predicate bill.spdx.json --key author.key",
    "vantage image attest IMAGE --type provenance --predicate provenance.json --key builder.key",
    local=True,
)
@click.argument("reference", metavar="IMAGE")
@click.option(
    "--type",
    "kind",
    required=True,
    metavar="TYPE",
    help="provenance (SLSA), spdx, cyclonedx, vulnerabilities (a scanner's, as cosign has them), or the URI of a type.",
)
@click.option(
    "--predicate",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file: what is said.",
)
@click.option(
    "--key",
    "key_path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Private key: of 'vantage image key', or of cosign.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password of the key from stdin.")
@registry_options
def attest(
    call: Call, reference: str, kind: str, path: Path, key_path: Path, password_stdin: bool, **options: Any
) -> None:
    """Attach a signed statement to an image.

    Nodes can be told to run images only with such statements (policy.images, attestations). It is stored as cosign 3
    does, as a sigstore bundle that refers to IMAGE, which is named by digest.
    """
    import asyncio

    from vantage.common import cosign, oci
    from vantage.common.image_attesting import attest_image
    from vantage.common.image_signing import MAX_ATTESTATION
    from vantage.common.predicate_types import ATTESTATIONS

    if password_stdin and options["registry_password_stdin"]:
        raise click.UsageError("stdin can hold one password: give the other by the prompt or the environment")
    require_registry(options)
    predicate_type = ATTESTATIONS.get(kind, kind)
    if "://" not in predicate_type:
        raise click.UsageError(f"--type must be one of {', '.join(ATTESTATIONS)}, or a URI")
    if path.stat().st_size > MAX_ATTESTATION:
        raise click.UsageError(f"--predicate: more than {MAX_ATTESTATION} bytes")
    try:
        predicate = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        predicate = None
    if not isinstance(predicate, dict):
        raise click.UsageError(f"--predicate: {path} is not a JSON object")
    parsed = oci.ImageReference.parse(reference)
    key = cosign.open_private_key(
        key_path.read_bytes(), key_password("Password of the key", password_stdin), str(key_path)
    )
    reach = access(parsed.registry, **options)

    async def run() -> str:
        async with oci.connect(parsed.registry, parsed.path, reach) as registry:
            return await attest_image(registry, parsed, key, predicate_type, predicate)

    digest = asyncio.run(run())
    call.output.done(
        f"attached {predicate_type} to {parsed}",
        {
            "image": str(parsed),
            "type": predicate_type,
            "digest": digest,
            "fingerprint": cosign.key_fingerprint(key.public_key()),
        },
    )
