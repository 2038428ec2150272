"""Images in their registries: which one a tag names, and what an image says of itself."""

from __future__ import annotations

from vantage.common import oci
from vantage.common.declaration import Declaration
from vantage.common.image_lookup import read_declaration, resolve, split_tag

_MAX_CACHED = 100


class AsyncImages:
    """Asks registries, without the server."""

    def __init__(self) -> None:
        self._declarations: dict[str, Declaration] = {}

    async def declaration(self, image: str) -> Declaration:
        """What an image says of itself: its functions, their arguments and data.

        Args:
            image: by digest.

        Raises:
            RefusedError: IMAGE_NOT_FOUND, IMAGE_DECLARATION_INVALID.
            UnavailableError: REGISTRY_UNAVAILABLE.
        """
        reference = oci.ImageReference.parse(image)
        if (known := self._declarations.get(str(reference))) is not None:
            return known  # what hangs on a digest never changes
        async with oci.connect(reference.registry, reference.path, oci.RegistryAccess()) as registry:
            found = await read_declaration(registry, reference)
        if len(self._declarations) >= _MAX_CACHED:
            self._declarations.clear()
        self._declarations[str(reference)] = found
        return found

    async def resolve(self, image: str) -> str:
        """The image that a tag names now, by digest.

        Args:
            image: ``REGISTRY/REPOSITORY:TAG``; without a tag, ``latest``.

        Raises:
            RefusedError: IMAGE_NOT_FOUND.
            UnavailableError: REGISTRY_UNAVAILABLE.
        """
        name, path, tag = split_tag(image)
        async with oci.connect(name, path, oci.RegistryAccess()) as registry:
            return str(await resolve(registry, name, path, tag))
