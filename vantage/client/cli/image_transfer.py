"""``vantage image export`` and ``import``: images and their signatures, where no registry can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vantage.client.cli.command import Call, command
from vantage.client.cli.images import image
from vantage.client.cli.progress import Transfers
from vantage.client.cli.registries import access, accesses, login_options, registry_options

if TYPE_CHECKING:
    from vantage.common.image_archive import Entry
    from vantage.common.oci import ImageReference, Registry

_QUIET = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")


@command(
    image,
    "export",
    "vantage image export registry.example.org/algorithms/summary@sha256:HEX --out images.tar",
    local=True,
)
@click.argument("references", metavar="IMAGE...", nargs=-1, required=True)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="New file: an OCI image layout, as other tools read it.",
)
@_QUIET
@registry_options
def export(call: Call, references: tuple[str, ...], out: Path, quiet: bool, **options: Any) -> None:
    """Write images with their signatures and attestations into a file.

    Everything is checked by its digest on the way. An export that was interrupted goes on where it ended
    (FILE.partial). A node reads the file in place of a registry ('archive' under 'registries'), or 'vantage image
    import' brings it to another one.
    """
    import asyncio

    from vantage.client.image_transfer import export_images
    from vantage.common import oci

    images = [oci.ImageReference.parse(each) for each in references]
    reach = accesses((each.registry for each in images), **options)
    transfers = Transfers(enabled=not quiet)

    def connect(registry: str, path: str) -> AbstractAsyncContextManager[Registry]:
        return oci.connect(registry, path, reach[registry])

    async def run() -> list[Entry]:
        return await export_images(images, connect, out, transfers)

    with transfers.shown(), _files(out):
        entries = asyncio.run(run())
    attached = len(entries) - len(set(images))
    call.output.done(
        f"wrote {out}: {_count(len(set(images)), 'image')}, and {attached} signatures and the like that hang on them",
        {"path": out, "size": out.stat().st_size, "images": images, "attached": attached},
    )


@command(
    image,
    "import",
    "vantage image import images.tar --registry registry.hospital.local:5000/mirror",
    local=True,
)
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--registry",
    "target",
    required=True,
    metavar="HOST[:PORT][/PREFIX]",
    help="Where to; repositories keep their paths below PREFIX.",
)
@_QUIET
@login_options
def import_(call: Call, path: Path, target: str, quiet: bool, **options: Any) -> None:
    """Bring the images in a file, with their signatures, to a registry.

    Everything is checked by its digest. What the registry has is passed over, so that an import that was interrupted
    goes on; signatures that it has beside those in FILE stay. Nodes use it as a mirror ('mirror' under 'registries'),
    since signatures name the images as they were called.
    """
    import asyncio

    from vantage.client.image_transfer import import_images
    from vantage.common import oci
    from vantage.common.image_reference import is_registry, is_repository

    host, _, prefix = target.partition("/")
    if not is_registry(host) or (prefix and not is_repository(prefix)):
        raise click.UsageError("--registry must be HOST[:PORT][/PREFIX]")
    reach = access(host, **options)
    transfers = Transfers(enabled=not quiet)

    def connect(registry: str, name: str) -> AbstractAsyncContextManager[Registry]:
        return oci.connect(registry, name, reach)

    async def run() -> list[ImageReference]:
        return await import_images(path, host, prefix, connect, transfers)

    with transfers.shown(), _files(path):
        images = asyncio.run(run())
    call.output.done(
        f"brought {_count(len(images), 'image')} to {target}: {', '.join(map(str, images))}", {"images": images}
    )


@contextmanager
def _files(path: Path) -> Iterator[None]:
    """Say of a file that cannot be read or written which one it is."""
    try:
        yield
    except OSError as problem:
        raise click.ClickException(f"{path}: {problem.strerror or problem}") from None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
