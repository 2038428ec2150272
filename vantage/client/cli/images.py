"""``vantage image``: authors sign, everybody verifies, and sees what an image can do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.registries import access, registry_options


@click.group()
def image() -> None:
    """Sign, verify and look at algorithm images."""


@command(image, "key", "vantage image key --out author", local=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("cosign"),
    show_default=True,
    help="Writes OUT.key and OUT.pub.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password of the key from stdin.")
def create_key(call: Call, out: Path, password_stdin: bool) -> None:
    """Make a pair of keys for signing images.

    The files are in cosign's format. The private key is encrypted with a password: typed, from stdin, or from
    COSIGN_PASSWORD as with cosign.
    """
    from vantage.common import cosign, pki

    private, public = out.with_name(f"{out.name}.key"), out.with_name(f"{out.name}.pub")
    password = _password("New password of the key", password_stdin, confirm=True)
    key = pki.create_key()
    pki.write_private(private, cosign.seal_private_key(key, password))
    public.write_bytes(cosign.public_pem(key.public_key()))
    call.output.done(
        f"created {private}, which stays with you, and {public}, which nodes trust (policy.images)",
        {"key": private, "public_key": public, "fingerprint": cosign.key_fingerprint(key.public_key())},
    )


@command(
    image,
    "sign",
    "vantage image sign registry.example.org/algorithms/summary@sha256:HEX --key cosign.key",
    local=True,
)
@click.argument("reference", metavar="IMAGE")
@click.option(
    "--key",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Private key: of 'vantage image key', or of cosign.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password of the key from stdin.")
@registry_options
def sign(call: Call, reference: str, path: Path, password_stdin: bool, **options: Any) -> None:
    """Add your signature to an image.

    IMAGE is named by digest, so that you sign what you looked at. Signatures that it has stay.
    """
    import asyncio

    from vantage.common import cosign, oci
    from vantage.common.image_signing import sign_image

    if password_stdin and options["registry_password_stdin"]:
        raise click.UsageError("stdin can hold one password: give the other by the prompt or the environment")
    parsed = oci.ImageReference.parse(reference)
    password = _password("Password of the key", password_stdin)
    key = cosign.open_private_key(path.read_bytes(), password, str(path))
    reach = access(parsed.registry, **options)

    async def run() -> bool:
        async with oci.connect(parsed.registry, parsed.path, reach) as registry:
            return await sign_image(registry, parsed, key)

    added = asyncio.run(run())
    call.output.done(
        f"signed {parsed}" if added else f"this key has signed {parsed} already",
        {"image": str(parsed), "added": added, "fingerprint": cosign.key_fingerprint(key.public_key())},
    )


@command(
    image,
    "verify",
    "vantage image verify registry.example.org/algorithms/summary@sha256:HEX --key author.pub",
    "vantage image verify IMAGE --key author.pub --key reviewer.pub --threshold 2",
    local=True,
)
@click.argument("reference", metavar="IMAGE")
@click.option(
    "--key",
    "paths",
    required=True,
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Public key that may have signed; repeatable.",
)
@click.option("--threshold", type=click.IntRange(1), default=1, show_default=True, help="How many of them must have.")
@registry_options
def verify(call: Call, reference: str, paths: tuple[Path, ...], threshold: int, **options: Any) -> None:
    """Check who signed an image, as a node does.

    The exit code is 1 when fewer than --threshold of the keys have signed IMAGE.
    """
    import asyncio

    from vantage.common import cosign, oci
    from vantage.common.image_signing import verify_image

    parsed = oci.ImageReference.parse(reference)
    keys = {str(path): cosign.load_public_key(path.read_bytes(), str(path)) for path in paths}
    if threshold > len(keys):
        raise click.UsageError(f"--threshold {threshold} cannot be met with {len(keys)} keys")
    reach = access(parsed.registry, **options)

    async def run() -> list[str]:
        async with oci.connect(parsed.registry, parsed.path, reach) as registry:
            return await verify_image(registry, parsed, keys, threshold)

    signers = asyncio.run(run())
    call.output.done(f"{parsed} is signed by {', '.join(signers)}", {"image": str(parsed), "signers": signers})


def _password(prompt: str, from_stdin: bool, *, confirm: bool = False) -> bytes:
    given = os.environ.get("COSIGN_PASSWORD")  # cosign's own variable, also when empty
    if given is not None and not from_stdin:
        return given.encode()
    return terminal.secret(prompt, from_stdin=from_stdin, option="--password-stdin", confirm=confirm).encode()
