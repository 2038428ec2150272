"""``vantage image``: authors sign, everybody verifies, and sees what an image can do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.registries import access, registry_options, require_registry
from vantage.common.text import one_line

if TYPE_CHECKING:
    from vantage.common.declaration import Function


@click.group()
def image() -> None:
    """Sign, verify, review and move algorithm images."""


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
    password = key_password("New password of the key", password_stdin, confirm=True)
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
@click.option(
    "--format",
    "layout",
    type=click.Choice(["classic", "bundle"]),
    default="classic",
    show_default=True,
    help="Where the signature lies: under a tag, which every verifier reads, or as the bundle that cosign 3 writes.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password of the key from stdin.")
@registry_options
def sign(call: Call, reference: str, path: Path, layout: str, password_stdin: bool, **options: Any) -> None:
    """Add your signature to an image.

    IMAGE is named by digest, so that you sign what you looked at. Signatures that it has stay; those of both formats
    count, a key once.
    """
    import asyncio

    from vantage.common import cosign, oci
    from vantage.common.image_signing import sign_image
    from vantage.common.image_statements import Layout

    if password_stdin and options["registry_password_stdin"]:
        raise click.UsageError("stdin can hold one password: give the other by the prompt or the environment")
    require_registry(options)
    parsed = oci.ImageReference.parse(reference)
    password = key_password("Password of the key", password_stdin)
    key = cosign.open_private_key(path.read_bytes(), password, str(path))
    reach = access(parsed.registry, **options)

    async def run() -> bool:
        async with oci.connect(parsed.registry, parsed.path, reach) as registry:
            return await sign_image(registry, parsed, key, Layout(layout))

    added = asyncio.run(run())
    call.output.done(
        f"signed {parsed}" if added else f"this key has signed {parsed} in this format already",
        {
            "image": str(parsed),
            "added": added,
            "format": layout,
            "fingerprint": cosign.key_fingerprint(key.public_key()),
        },
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
@click.option(
    "--signed-as",
    multiple=True,
    metavar="REPOSITORY",
    help="Other name under which it may have been signed; repeatable.",
)
@registry_options
def verify(
    call: Call, reference: str, paths: tuple[Path, ...], threshold: int, signed_as: tuple[str, ...], **options: Any
) -> None:
    """Check who signed an image, as a node does.

    Signatures of both formats count, a key once, and those that name a repository count for that one. The exit code is
    1 when fewer than --threshold of the keys have signed IMAGE.
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
            return await verify_image(registry, parsed, keys, threshold, signed_as)

    signers = asyncio.run(run())
    call.output.done(f"{parsed} is signed by {', '.join(signers)}", {"image": str(parsed), "signers": signers})


@command(
    image,
    "show",
    "vantage image show registry.example.org/algorithms/summary:latest",
    "vantage image show registry.example.org/algorithms/summary@sha256:HEX --output json",
    local=True,
)
@click.argument("reference", metavar="IMAGE")
@registry_options
def show(call: Call, reference: str, **options: Any) -> None:
    """Show what an image can do.

    Tells the digest of IMAGE, which may be named by tag, and the functions that it declares with their arguments and
    data. Who signed it is for 'vantage image verify' to tell.
    """
    import asyncio

    from vantage.common import oci
    from vantage.common.declaration import Declaration
    from vantage.common.image_lookup import read_declaration, resolve, split_tag

    if "@" in reference:
        parsed = oci.ImageReference.parse(reference)
        name, path, tag = parsed.registry, parsed.path, None
    else:
        parsed = None
        name, path, tag = split_tag(reference)
    reach = access(name, **options)

    async def run() -> tuple[oci.ImageReference, Declaration]:
        async with oci.connect(name, path, reach) as registry:
            found = parsed if parsed is not None else await resolve(registry, name, path, tag or "latest")
            return found, await read_declaration(registry, found)

    found, declaration = asyncio.run(run())
    if call.output.is_json:
        call.output.document({"image": str(found), **declaration.dump()})
        return
    click.echo(str(found))
    for function in declaration.functions.values():
        click.echo()
        for line in describe_function(function):
            click.echo(one_line(line))


def describe_function(function: Function) -> Iterator[str]:
    """A function: one line, then one for each argument and each dataset."""
    kind = "asks others" if function.kind == "central" else "reads data" if function.data else "reads no data"
    yield f"{function.name} ({kind})"
    if function.description:
        yield f"  {function.description}"
    required = function.arguments.get("required", ())
    properties = function.arguments.get("properties", {})
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        known = schema if isinstance(schema, dict) else {}
        parts = [str(known.get("type", "any")), *([] if name in required else ["optional"])]
        if "default" in known:
            parts.append(f"default {json.dumps(known['default'])}")
        yield f"  --arguments {name}: {', '.join(parts)}  {known.get('description', '')}".rstrip()
    for parameter in function.data:
        yield f"  --dataset {parameter.name}=NAME  {parameter.description}".rstrip()
    if function.egress:
        yield f"  connects to {', '.join(function.egress)}, where nodes allow it"


def key_password(prompt: str, from_stdin: bool, *, confirm: bool = False) -> bytes:
    """The password of a key that signs images: from stdin, from cosign's variable, or typed."""
    given = os.environ.get("COSIGN_PASSWORD")  # cosign's own variable, also when empty
    if given is not None and not from_stdin:
        return given.encode()
    return terminal.secret(prompt, from_stdin=from_stdin, option="--password-stdin", confirm=confirm).encode()
