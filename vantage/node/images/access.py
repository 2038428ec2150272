"""How the node reaches registries: what its admin wrote under ``registries``."""

from __future__ import annotations

from dataclasses import replace

from vantage.common.errors import Reason, error
from vantage.common.registry_auth import RegistryAccess, Tokens
from vantage.node.config import NodeConfig
from vantage.node.registry_section import RegistrySection


class RegistryAccesses:
    """The access of each registry; one that nobody wrote about is asked without credentials.

    Args:
        config: the node's.
        tokens: those of the server.

    Raises:
        ConfigurationError: a password file cannot be read.
    """

    def __init__(self, config: NodeConfig, tokens: Tokens | None = None) -> None:
        self._mirrors = {each.address: each.mirror for each in config.registries if each.mirror is not None}
        self._own = {each.address: _access(each, tokens) for each in config.registries if each.mirror is None}

    def __call__(self, registry: str) -> RegistryAccess:
        """How a registry is reached. Whatever an image is called, a mirror is asked with the credentials of its own."""
        mirror = self._mirrors.get(registry)
        if mirror is None:
            return self._own.get(registry, RegistryAccess())
        return replace(self._own.get(mirror.partition("/")[0], RegistryAccess()), mirror=mirror)


def _access(section: RegistrySection, tokens: Tokens | None) -> RegistryAccess:
    password = None
    if section.password_file is not None:
        try:
            password = section.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"registries: cannot read {section.password_file}: {problem}",
                path=str(section.password_file),
            ) from problem
    return RegistryAccess(
        section.username,
        password,
        section.insecure,
        section.ca,
        tokens=tokens if section.server_tokens else None,
        archive=section.archive,
        patience=float(section.timeout),
    )
