"""Images in their registries: which one a tag names, and what an image says of itself."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from vantage.common import oci
from vantage.common.clock import Clock, SystemClock
from vantage.common.declaration import Declaration
from vantage.common.errors import RefusedError, UnavailableError
from vantage.common.image_lookup import read_declaration, resolve, split_tag

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds that a question waits for a registry: what it tells is of help, not needed."""
FORGET = timedelta(minutes=5)
"""How long a registry that could not be used is left alone by questions."""
_MAX_CACHED = 100


class AsyncImages:
    """Asks registries, without the server.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._declarations: dict[str, Declaration] = {}
        self._unusable: dict[str, datetime] = {}

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

    async def declaration_if_known(self, image: str) -> Declaration | None:
        """What an image says of itself, or None when it cannot be told soon; never raises for a registry's sake.

        Raises:
            InvalidArgumentError: IMAGE_NOT_BY_DIGEST.
        """
        registry = oci.ImageReference.parse(image).registry
        now = self._clock.now()
        since = self._unusable.get(registry)
        if since is not None and now - since < FORGET:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.declaration(image)
        except (UnavailableError, RefusedError, TimeoutError) as problem:
            # Nodes may reach a registry that this machine does not, with credentials that this client does not have.
            log.warning(
                "the question goes out unchecked: the image's declaration cannot be read from here",
                extra={"image": image, "problem": type(problem).__name__},
            )
            if not isinstance(problem, RefusedError):
                self._unusable[registry] = now
            return None
