"""Where the passphrase of a user's key comes from when nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from vantage.client.keys import KEYRING_SERVICE, PASSPHRASE_VARIABLE, stored_passphrase
from vantage.common.errors import InvalidArgumentError, Reason

ROSA = "organizations/dora/users/rosa"


class Memory(KeyringBackend):
    """A system keyring that forgets."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of the library
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked("locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    before, memory = keyring.get_keyring(), Memory()
    keyring.set_keyring(memory)
    yield memory
    keyring.set_keyring(before)


def test_the_system_keyring_is_asked_and_the_environment_goes_before(
    system: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored_passphrase(ROSA) is None
    keyring.set_password(KEYRING_SERVICE, ROSA, "two dry foxes")
    assert stored_passphrase(ROSA) == b"two dry foxes"
    assert stored_passphrase("organizations/dora/users/otto") is None
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "another")
    assert stored_passphrase(ROSA) == b"another"


def test_a_locked_keyring_says_what_helps(system: Memory) -> None:
    system.locked = True
    with pytest.raises(InvalidArgumentError, match=PASSPHRASE_VARIABLE) as caught:
        stored_passphrase(ROSA)
    assert caught.value.reason is Reason.KEY_INVALID
