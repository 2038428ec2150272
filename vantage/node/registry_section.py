"""Registries in a node's configuration."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from vantage.common.image_reference import is_registry
from vantage.node.fields import Seconds, Section


class RegistrySection(Section):
    """How to reach a registry: credentials in a file, plain HTTP only where said; or a mirror that stands in for it."""

    address: str
    username: str | None = None
    password_file: Path | None = None
    insecure: bool = False
    ca: Path | None = None
    timeout: Seconds = 15
    server_tokens: bool = False
    mirror: str | None = None
    archive: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> RegistrySection:
        if not is_registry(self.address):
            raise ValueError("address must be HOST or HOST:PORT, as images are named")
        if self.mirror is not None and not is_registry(self.mirror.partition("/")[0]):
            raise ValueError("mirror must be HOST[:PORT][/PREFIX]")
        replaced = {"address", "mirror", "archive"}
        if (self.mirror or self.archive) and (self.model_fields_set - replaced or (self.mirror and self.archive)):
            raise ValueError(
                "with a mirror or archive the registry itself is not asked: a mirror has an entry of its own"
            )
        if self.server_tokens and self.username is not None:
            raise ValueError("server_tokens: true contradicts username: remove one")
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        return self

    @property
    def way(self) -> str:
        """How it is reached, for people."""
        if self.mirror is not None:
            return f"its mirror {self.mirror} is asked"
        if self.archive is not None:
            return f"{self.archive} is read"
        who = "with tokens of the server" if self.server_tokens else f"as {self.username or 'anybody'}"
        return f"{who}, without TLS" if self.insecure else who
