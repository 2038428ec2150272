"""For which repositories nodes get tokens."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from vantage.common.clock import SystemClock
from vantage.common.errors import NotFoundError
from vantage.server.config import RegistryEntry
from vantage.server.domain.principals import NodePrincipal
from vantage.server.registry_certificate import pull_tokens
from vantage.server.services.registries import Registries

NODE = NodePrincipal("organizations/alpha/nodes/one", "organizations/alpha", frozenset())


def test_all_entries_of_a_registry_count(tmp_path: Path) -> None:
    entries = [
        RegistryEntry(address="registry.example.org", repositories=("algorithms/*",), service="first"),
        RegistryEntry(address="registry.example.org", repositories=("models/**",), service="second"),
    ]
    registries = Registries(entries, pull_tokens(tmp_path, SystemClock()))
    for repository, service in (("algorithms/summary", "first"), ("models/a/b", "second")):
        token = registries.pull_token(NODE, "registry.example.org", repository)
        assert jwt.decode(token, options={"verify_signature": False})["aud"] == service
    with pytest.raises(NotFoundError):
        registries.pull_token(NODE, "registry.example.org", "others/summary")
