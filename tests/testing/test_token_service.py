"""A real registry that sends to a token service, and our client between the two."""

from __future__ import annotations

from pathlib import Path

import pytest

from vantage.common import oci
from vantage.common.errors import Reason, VantageError
from vantage.common.oci import RegistryAccess
from vantage.testing.layered_images import Build, Layer, push_build
from vantage.testing.registry import Registry
from vantage.testing.token_service import TokenService

pytestmark = pytest.mark.docker

CLARA = RegistryAccess("clara", "secret words")


async def test_a_password_is_exchanged_for_tokens_of_what_is_done(tmp_path: Path) -> None:
    with (
        TokenService(tmp_path, {"clara": "secret words"}) as service,
        Registry(tmp_path / "registry", tokens=service.trust) as registry,
    ):
        image = await push_build(registry.address, "a/b", Build([Layer.of({"x": b"x"})]), access=CLARA)
        async with oci.connect(image.registry, image.path, CLARA) as connection:
            assert await connection.manifest(image.digest) is not None
            assert await connection.manifest("nothing") is None
        assert {name for name, _query in service.asked} == {"clara"}
        # With the rights that the registry named, and a token for each once: pushing asks for more than pulling.
        scopes = [query["scope"] for _name, query in service.asked]
        assert scopes[-1] == ["repository:a/b:pull"]
        # The registry names them in any order.
        assert any(set(scope.removeprefix("repository:a/b:").split(",")) == {"pull", "push"} for (scope,) in scopes)
        assert len(scopes) <= 3
        for access in (RegistryAccess("clara", "wrong"), RegistryAccess()):
            async with oci.connect(image.registry, image.path, access) as connection:
                with pytest.raises(VantageError, match="does not accept the credentials") as caught:
                    await connection.manifest(image.digest)
            assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE


async def test_a_token_service_that_is_down_is_said(tmp_path: Path) -> None:
    with TokenService(tmp_path, {}) as service:
        trust = service.trust
    with Registry(tmp_path / "registry", tokens=trust) as registry:
        async with oci.connect(registry.address, "a/b", CLARA) as connection:
            with pytest.raises(VantageError, match="cannot be used: ConnectError"):
                await connection.manifest("latest")
