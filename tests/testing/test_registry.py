"""The registry that the other tests rely on."""

from pathlib import Path

import httpx
import pytest

from vantage.testing.registry import Registry

pytestmark = pytest.mark.docker


def test_it_answers_on_loopback_until_it_is_stopped(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        assert registry.address.startswith("127.0.0.1:")
        assert httpx.get(f"{registry.url}/v2/").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{registry.url}/v2/")


def test_content_and_address_survive_a_restart(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        address = registry.address
        upload = httpx.post(f"{registry.url}/v2/some/image/blobs/uploads/")
        digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        assert httpx.put(f"{upload.headers['location']}&digest={digest}", content=b"hello").status_code == 201
        registry.stop()
        registry.start()
        assert registry.address == address
        assert httpx.get(f"{registry.url}/v2/some/image/blobs/{digest}").content == b"hello"


def test_with_passwords_only_those_who_know_one_come_in(tmp_path: Path) -> None:
    with Registry(tmp_path, htpasswd={"clara": "correct horse"}) as registry:
        probe = f"{registry.url}/v2/"
        assert httpx.get(probe).status_code == 401
        assert httpx.get(probe, auth=("clara", "wrong")).status_code == 401
        assert httpx.get(probe, auth=("clara", "correct horse")).status_code == 200


def test_a_registry_that_cannot_start_says_why(tmp_path: Path) -> None:
    with Registry(tmp_path / "one") as first:
        second = Registry(tmp_path / "two")
        second._address = first.address
        with pytest.raises(RuntimeError, match="address already in use"):
            second.start()
