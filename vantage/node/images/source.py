"""Signed images as the source of code."""

from __future__ import annotations

from vantage.common.clock import SystemClock
from vantage.common.registry_auth import Tokens
from vantage.node.config import NodeConfig
from vantage.node.images.access import RegistryAccesses
from vantage.node.images.puller import ImagePuller
from vantage.node.images.rules import load_policy
from vantage.node.images.store import EvidenceStore
from vantage.node.images.verifier import Access, ImageVerifier, VerifiedImage
from vantage.node.sources import CodeRequest, Tell, TrustedCode

EVIDENCE = "evidence"
"""Directory below ``data_dir``."""


def build_verifier(config: NodeConfig, access: Access) -> ImageVerifier:
    """What decides about images, as a configuration says.

    Args:
        config: the node's.
        access: how each registry is reached.

    Raises:
        VantageError: a key or a password file is not usable.
    """
    store = EvidenceStore(config.data_dir / EVIDENCE)
    return ImageVerifier(load_policy(config.policy), access, store, SystemClock())


class ImageSource:
    """Keeps ``CodeSource`` with a registry and an engine.

    Args:
        config: the node's.
        tokens: those of the server, for registries that trust it.

    Raises:
        VantageError: a key or a password file is not usable.
    """

    def __init__(self, config: NodeConfig, tokens: Tokens | None = None) -> None:
        access = RegistryAccesses(config, tokens)
        self._verifier = build_verifier(config, access)
        self._puller = ImagePuller(config.docker.host, access, config.data_dir / "images", config.limits.max_image_size)

    async def trust(self, request: CodeRequest) -> TrustedCode:
        """See ``CodeSource``."""
        admission = await self._verifier.verify(request)
        return TrustedCode(admission.image, admission.image.declaration, admission.bounds)

    async def fetch(self, trusted: TrustedCode, tell: Tell) -> None:
        """See ``CodeSource``."""
        if isinstance(trusted.code, VerifiedImage):
            await self._puller.fetch(trusted.code, tell)
