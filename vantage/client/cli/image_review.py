"""``vantage image review``: look at an image, and sign what was looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vantage.client.cli import terminal
from vantage.client.cli.command import Call, command
from vantage.client.cli.images import describe_function, image, key_password
from vantage.client.cli.progress import Transfers
from vantage.client.cli.registries import accesses, registry_options, require_registry
from vantage.common.text import revealed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from vantage.client.image_changes import Change
    from vantage.client.image_files import File
    from vantage.client.image_review import Review
    from vantage.common.oci import ImageReference, RegistryAccess

MAX_PATHS = 500
MAX_LINES = 2_000
"""Of differences in texts; JSON has all of both."""
MAX_PACKAGES = 10
_MARKS = {"added": "+", "changed": "~", "removed": "-"}


@command(
    image,
    "review",
    "vantage image review registry.example.org/algorithms/summary@sha256:HEX --against sha256:OLDER",
    "vantage image review IMAGE --known author.pub --key reviewer.key",
    local=True,
)
@click.argument("reference", metavar="IMAGE")
@click.option(
    "--against",
    metavar="DIGEST",
    help="Earlier image of the same repository, or another image by its whole name: show what differs.",
)
@click.option(
    "--known",
    "known",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Public key to look for among the signatures; repeatable.",
)
@click.option(
    "--key",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Private key of the reviewer: sign in the end, after a question.",
)
@click.option(
    "--format",
    "layout",
    type=click.Choice(["classic", "bundle"]),
    default="classic",
    show_default=True,
    help="Form of that signature, as for 'vantage image sign'.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password of the key from stdin.")
@click.option("-y", "--yes", is_flag=True, help="Sign without the question.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@registry_options
def review(
    call: Call,
    reference: str,
    against: str | None,
    known: tuple[Path, ...],
    path: Path | None,
    layout: str,
    password_stdin: bool,
    yes: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Look at an image before you trust it, and sign it as its reviewer.

    Shows what IMAGE declares, what its containers start with, its layers, the files that differ from an earlier image
    (small text files line by line), bills of materials, and who signed it. Everything is fetched and checked against
    the digest, which is what is signed. Without --against the files of small layers are shown, which are those that
    an author adds to a base image; name the base image to see all.
    """
    import asyncio

    from vantage.client.image_review import review as look
    from vantage.common import cosign, oci
    from vantage.common.image_signing import sign_image
    from vantage.common.image_statements import Layout

    if password_stdin and options["registry_password_stdin"]:
        raise click.UsageError("stdin can hold one password: give the other by the prompt or the environment")
    if path is not None:
        require_registry(options)
    parsed = oci.ImageReference.parse(reference)
    earlier = None if against is None else _earlier(parsed, against)
    reach = accesses((each.registry for each in (parsed, earlier) if each is not None), **options)
    keys = {str(each): cosign.load_public_key(each.read_bytes(), str(each)) for each in known}
    transfers = Transfers(enabled=not quiet)
    with transfers.shown():
        seen = asyncio.run(_look(look, parsed, earlier, keys, reach, transfers))
    if not call.output.is_json:
        for line in _lines(seen):
            click.echo(revealed(line))
    if path is None:
        if call.output.is_json:
            call.output.document(_document(seen))
        return
    terminal.confirm(f"Sign {parsed} with {path}?", yes=yes)
    key = cosign.open_private_key(path.read_bytes(), key_password("Password of the key", password_stdin), str(path))

    async def sign() -> bool:
        async with oci.connect(parsed.registry, parsed.path, reach[parsed.registry]) as registry:
            return await sign_image(registry, parsed, key, Layout(layout))

    added = asyncio.run(sign())
    fingerprint = cosign.key_fingerprint(key.public_key())
    call.output.done(
        f"signed {parsed}" if added else f"this key has signed {parsed} in this format already",
        {**_document(seen), "signed": {"added": added, "format": layout, "fingerprint": fingerprint}},
    )


def _earlier(reference: ImageReference, text: str) -> ImageReference:
    from vantage.common.oci import ImageReference, is_digest

    if is_digest(text):
        return ImageReference(reference.registry, reference.path, text)
    return ImageReference.parse(text)


async def _look(
    look: Any,
    reference: ImageReference,
    earlier: ImageReference | None,
    keys: Mapping[str, ec.EllipticCurvePublicKey],
    reach: Mapping[str, RegistryAccess],
    transfers: Transfers,
) -> Review:
    from vantage.common import oci

    async with AsyncExitStack() as open_:

        async def connect(image: ImageReference) -> oci.Registry:
            return await open_.enter_async_context(oci.connect(image.registry, image.path, reach[image.registry]))

        before = None if earlier is None else (await connect(earlier), earlier)
        seen: Review = await look(await connect(reference), reference, before, keys, transfers)
        return seen


def _document(seen: Review) -> dict[str, Any]:
    declaration = None if seen.declaration is None else seen.declaration.dump()
    return {
        "image": seen.image,
        "against": seen.against,
        "declaration": declaration,
        "declaration_problem": seen.problem or None,
        "settings": seen.settings,
        "layers": seen.layers,
        "setting_changes": seen.setting_changes,
        "changes": seen.changes,
        "bills": seen.bills,
        "signatures": seen.signatures,
    }


def _lines(seen: Review) -> Iterator[str]:
    """What people read, in the order in which they should."""
    from vantage.common.declaration import LABEL

    yield seen.image
    if seen.against is not None:
        yield f"compared with {seen.against}"
    yield from ("", "DECLARES")
    if seen.declaration is None:
        yield f"  nothing usable: {seen.problem}"
    else:
        for function in seen.declaration.functions.values():
            yield from (f"  {line}".rstrip() for line in describe_function(function))
    yield from ("", "STARTS WITH")
    for name, value in sorted(seen.settings.items()):
        if name != "Labels" and value:
            yield f"  {name}: {value if isinstance(value, str) else json.dumps(value)}"
    labels = seen.settings.get("Labels")
    for name, value in sorted(labels.items() if isinstance(labels, dict) else ()):
        if name != LABEL:
            yield f"  label {name}: {str(value)[:200]}"
    if not seen.settings.get("User"):
        yield "  User: none is set, which means root; nodes run it as another user"
    for change in seen.setting_changes:
        yield f"  ~ {change.name}"
        yield from (f"      {line}" for line in change.diff)
    yield from ("", f"LAYERS ({len(seen.layers)})")
    for number, layer in enumerate(seen.layers, 1):
        shared = ", as before" if layer.known else ""
        yield (
            f"  {number}. {layer.digest[:19]}  {_size(layer.size)}, {_size(layer.unpacked)} unpacked, "
            f"{layer.files} files{shared}"
        )
        if layer.created_by:
            yield f"     {' '.join(layer.created_by.split())[:200]}"
    yield from _changes(seen)
    yield from ("", "BILLS OF MATERIALS")
    for bill in seen.bills:
        yield f"  {bill.form}, {len(bill.packages)} packages, {'attested' if bill.signed else 'not signed'}"
        yield from (f"    {each}" for each in bill.packages[:MAX_PACKAGES])
        if len(bill.packages) > MAX_PACKAGES:
            yield f"    … and {len(bill.packages) - MAX_PACKAGES} more"
    if not seen.bills:
        yield "  none"
    yield from ("", "SIGNATURES")
    for each in seen.signatures:
        other = f", made for {', '.join(each.made_for)}" if each.made_for else ""
        yield f"  {each.predicate} by {each.signer or 'a key that is not among --known'} ({each.layout}){other}"
    if not seen.signatures:
        yield "  none"


def _changes(seen: Review) -> Iterator[str]:
    from vantage.client.image_changes import MAX_DIFF
    from vantage.client.image_review import MAX_LISTED

    yield ""
    yield f"FILES ({len(seen.changes)} differ)" if seen.against is not None else "FILES of small layers"
    lines = 0
    for change in seen.changes[:MAX_PATHS]:
        yield f"  {_MARKS[change.what]} {change.path}  {_described(change)}{_unseen(change)}"
        shown = change.diff[: max(0, MAX_LINES - lines)]
        lines += len(shown)
        yield from (f"      {line}" for line in shown)
        if len(shown) < len(change.diff):
            yield f"      … and {len(change.diff) - len(shown)} more lines"
        if change.omitted:
            yield f"      … not shown: the image has more than {MAX_DIFF} characters of differences in texts"
    if len(seen.changes) > MAX_PATHS:
        yield f"  … and {len(seen.changes) - MAX_PATHS} more: --output json has all"
    if not seen.changes:
        yield "  none"
    large = [str(number) for number, each in enumerate(seen.layers, 1) if each.files > MAX_LISTED]
    if seen.against is None and large:
        yield f"  not listed: layers {', '.join(large)}; name the base image with --against"


def _described(change: Change) -> str:
    before, after = change.before, change.after
    if before is None or after is None:
        return _file(after or before)
    if _file(before) == _file(after):
        return f"{_file(after)}, other content"
    return f"{_file(before)} -> {_file(after)}"


def _unseen(change: Change) -> str:
    """That the content of a file is not shown, and why: whoever signs must not take it for seen."""
    from vantage.client.image_changes import is_small

    before, after = change.before, change.after
    if after is None or after.kind != "file" or not after.size or change.diff or change.omitted:
        return ""
    if before is not None and before.digest == after.digest:
        return ""
    return ", not shown: no text" if is_small(after) else ", not shown: too long"


def _file(file: File | None) -> str:
    if file is None:
        return ""
    # What lets a program act with other rights is said aloud; engines give a hard link's mode to the file that it is.
    special = " SET-USER-ID" if file.mode & 0o6000 and file.kind in ("file", "hard link") else ""
    special += f" CAPABILITIES {file.capabilities}" if file.capabilities else ""
    detail = _size(file.size) if file.kind == "file" else f"to {file.target}" if file.target else ""
    return f"{file.kind} {file.mode:04o} {file.owner}{special} {detail}".rstrip()


def _size(count: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
