"""Names of images: by digest, and by nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vantage.common.errors import Reason, error

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(r"(?:[a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")


def is_digest(text: object) -> bool:
    """Whether it is ``sha256:`` and 64 hexadecimal digits, so that what it names can be checked against it."""
    return isinstance(text, str) and DIGEST.fullmatch(text) is not None


def is_registry(text: str) -> bool:
    """Whether it is ``HOST`` or ``HOST:PORT``."""
    return _HOST.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    """Whether it is the path of a repository within its registry."""
    return _REPOSITORY.fullmatch(text) is not None


@dataclass(frozen=True)
class ImageReference:
    """``REGISTRY/REPOSITORY@sha256:HEX``.

    Attributes:
        registry: ``host`` or ``host:port``.
        path: repository within the registry.
        digest: ``sha256:`` and 64 hexadecimal digits.
    """

    registry: str
    path: str
    digest: str

    @property
    def repository(self) -> str:
        """Registry and path."""
        return f"{self.registry}/{self.path}"

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Parse a reference by digest; a tag beside the digest is not allowed, since nobody would know which counts.

        Raises:
            InvalidArgumentError: IMAGE_NOT_BY_DIGEST.
        """
        name, _, digest = text.partition("@")
        registry, _, path = name.partition("/")
        if (
            not is_digest(digest)
            or not is_registry(registry)
            or ("." not in registry and ":" not in registry and registry != "localhost")
            or not is_repository(path)
        ):
            raise error(
                Reason.IMAGE_NOT_BY_DIGEST,
                f"the image must be named by digest, REGISTRY/REPOSITORY@sha256:HEX, got {text[:200]!r}",
            )
        return cls(registry, path, digest)
