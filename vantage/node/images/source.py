"""Signed images as the source of code."""

from __future__ import annotations

from vantage.common import oci
from vantage.common.errors import Reason, error
from vantage.node.config import NodeConfig
from vantage.node.images.puller import ImagePuller
from vantage.node.images.rules import load_rules
from vantage.node.images.verifier import ImageVerifier, VerifiedImage
from vantage.node.sources import Tell, TrustedCode


class ImageSource:
    """Keeps ``CodeSource`` with a registry and an engine.

    Args:
        config: the node's.

    Raises:
        VantageError: a key or a password file is not usable.
    """

    def __init__(self, config: NodeConfig) -> None:
        accesses = _accesses(config)

        def access(registry: str) -> oci.RegistryAccess:
            return accesses.get(registry, oci.RegistryAccess())

        self._verifier = ImageVerifier(load_rules(config.policy.images), access)
        self._puller = ImagePuller(config.docker.host, access)

    async def trust(self, image: str, function: str) -> TrustedCode:
        """See ``CodeSource``."""
        verified = await self._verifier.verify(image, function)
        return TrustedCode(verified, verified.declaration)

    async def fetch(self, trusted: TrustedCode, tell: Tell) -> None:
        """See ``CodeSource``."""
        if isinstance(trusted.code, VerifiedImage):
            await self._puller.fetch(trusted.code, tell)


def _accesses(config: NodeConfig) -> dict[str, oci.RegistryAccess]:
    accesses = {}
    for registry in config.registries:
        password = None
        if registry.password_file is not None:
            try:
                password = registry.password_file.read_text().strip()
            except OSError as problem:
                raise error(
                    Reason.CONFIGURATION_INVALID,
                    f"registries: cannot read {registry.password_file}: {problem.strerror}",
                    path=str(registry.password_file),
                ) from problem
        accesses[registry.address] = oci.RegistryAccess(registry.username, password, registry.insecure, registry.ca)
    return accesses
