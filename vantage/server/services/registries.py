"""Pulling from registries: what nodes are given to show there."""

from __future__ import annotations

from collections.abc import Iterable

from vantage.common.errors import Reason, error
from vantage.common.image_reference import is_repository
from vantage.common.repository_patterns import matches
from vantage.server.config import RegistryEntry
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.pull_tokens import PullTokens

MAX_NAME = 300


class Registries:
    """Use cases of registries.

    Args:
        entries: what the operator has configured.
        tokens: issues them.
    """

    def __init__(self, entries: Iterable[RegistryEntry], tokens: PullTokens) -> None:
        self._entries = tuple(entries)
        self._tokens = tokens

    def pull_token(self, node: NodePrincipal, registry: str, repository: str) -> str:
        """A token with which a node may pull from one repository.

        Raises:
            InvalidArgumentError: a name is too long.
            NotFoundError: the operator has configured no such registry or repository.
        """
        if max(len(registry), len(repository)) > MAX_NAME or not is_repository(repository):
            raise error(
                Reason.INVALID_ARGUMENT,
                f"repository must be a path like algorithms/summary; no name has more than {MAX_NAME} characters",
            )
        entry = next((each for each in self._entries if _offers(each, registry, repository)), None)
        if entry is None:
            raise error(
                Reason.NOT_FOUND,
                f"the server gives no tokens for {registry}/{repository}: ask its operator to add it to 'registries'",
            )
        return self._tokens.issue(node.name, entry.issuer, entry.service or entry.address, repository)


def _offers(entry: RegistryEntry, registry: str, repository: str) -> bool:
    return entry.address == registry and any(matches(pattern, repository) for pattern in entry.repositories)
