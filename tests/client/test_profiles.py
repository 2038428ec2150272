"""Profiles and tokens on disk."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vantage.client import FileTokenStore, Tokens, profiles
from vantage.client.profiles import Profile, Profiles
from vantage.common.errors import ConfigurationError

MOMENT = datetime(2026, 11, 1, tzinfo=UTC)
TOKENS = Tokens("users/rosa", "access", MOMENT, "refresh", MOMENT)


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VANTAGE_CONFIG_DIR", str(tmp_path / "configuration"))
    return tmp_path / "configuration"


def test_what_is_written_is_what_is_read(configuration: Path) -> None:
    assert profiles.load() == Profiles()
    made = Profile("a:1", fingerprint="sha256:ab", username="rosa")
    with profiles.changing() as box:
        box[0] = (
            box[0].put("one", made).put("two", Profile("b:2", ca=Path("/ca.pem"))).put("3", Profile("c:3", tls=False))
        )
    read = profiles.load()
    assert read.get() == ("one", made)
    assert read.get("two") == ("two", Profile("b:2", ca=Path("/ca.pem")))
    assert read.get("3")[1].tls is False
    assert (configuration / "profiles.yaml").stat().st_mode & 0o777 == 0o600
    assert configuration.stat().st_mode & 0o777 == 0o700
    assert read.use("two").remove("two").current == ""


def test_a_change_that_fails_changes_nothing(configuration: Path) -> None:
    with profiles.changing() as box:
        box[0] = box[0].put("one", Profile("a:1"))

    def change() -> None:
        with profiles.changing() as box:
            box[0] = box[0].put("three", Profile("c:3"))
            box[0] = box[0].use("two")

    with pytest.raises(ConfigurationError, match="no profile 'two'"):
        change()
    assert list(profiles.load().profiles) == ["one"]
    assert sorted(path.name for path in configuration.iterdir()) == ["profiles.lock", "profiles.yaml"]


@pytest.mark.parametrize("content", ["[", "profiles: 3", "profiles: {a: {}}", "- a", "profiles: {a: 3}"])
def test_a_file_that_is_not_usable_is_named(configuration: Path, content: str) -> None:
    configuration.mkdir()
    (configuration / "profiles.yaml").write_text(content)
    with pytest.raises(ConfigurationError, match=r"profiles\.yaml"):
        profiles.load()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a" * 64])
def test_a_name_is_safe_in_a_path(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name has"):
        Profiles().put(name, Profile("a:1"))


async def test_tokens_are_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path / "tokens" / "one.json")
    assert await store.load() is None
    await store.save(TOKENS)
    assert await store.load() == TOKENS
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700
    assert "access" not in repr(TOKENS).replace("access_expires", "")
    await store.save(None)
    assert await store.load() is None
    await store.save(None)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"user": 1}', json.dumps({"user": "u", "access_token": "a"})])
async def test_a_damaged_token_file_is_no_log_in(tmp_path: Path, content: str) -> None:
    path = tmp_path / "one.json"
    path.write_text(content)
    assert await FileTokenStore(path).load() is None


async def test_one_holds_the_lock_at_a_time(tmp_path: Path) -> None:
    first, second = (FileTokenStore(tmp_path / "one.json") for _ in range(2))
    order = []
    entered = asyncio.Event()

    async def late() -> None:
        entered.set()
        async with second.lock():
            order.append("second")

    async with first.lock():
        waiting = asyncio.create_task(late())
        await entered.wait()
        order.append("first")
    await waiting
    assert order == ["first", "second"]
