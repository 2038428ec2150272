from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vantage.common import sealing
from vantage.common.errors import InvalidArgumentError, Reason, RefusedError
from vantage.common.sealing import SealedPayload

ONE, TWO, OTHER = (sealing.create_identity() for _ in range(3))
CHUNK = 64 * 1024


@given(st.binary(max_size=300))
def test_every_recipient_opens_it_and_nobody_else(content: bytes) -> None:
    sealed = sealing.seal(content, [sealing.recipient_of(ONE), sealing.recipient_of(TWO)])
    assert sealing.unseal(sealed, [ONE]) == content
    assert sealing.unseal(sealed, [OTHER, TWO]) == content
    with pytest.raises(RefusedError, match="sealed to other keys") as caught:
        sealing.unseal(sealed, [OTHER])
    assert caught.value.reason is Reason.SEAL_INVALID


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_streams_and_bytes_are_the_same_format(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    target = io.BytesIO()
    sealing.seal_stream(io.BytesIO(content), target, [sealing.recipient_of(ONE)])
    assert sealing.unseal(SealedPayload(target.getvalue()), [ONE]) == content
    opened = io.BytesIO()
    sealing.unseal_stream(io.BytesIO(sealing.seal(content, [sealing.recipient_of(ONE)]).content), opened, [ONE])
    assert opened.getvalue() == content


@pytest.mark.parametrize(
    "damage",
    [
        lambda sealed: sealed[:-1],
        lambda sealed: sealed[: len(sealed) - CHUNK],
        lambda sealed: sealed[:-5] + bytes([sealed[-5] ^ 1]) + sealed[-4:],
        lambda sealed: b"age-encryption.org/v2" + sealed[21:],
        lambda sealed: b"",
        lambda sealed: b"plain text",
    ],
)
def test_a_damaged_payload_does_not_open(damage: object) -> None:
    sealed = sealing.seal(b"x" * (2 * CHUNK + 10), [sealing.recipient_of(ONE)]).content
    damaged = damage(sealed)  # type: ignore[operator]
    for opening in (
        lambda: sealing.unseal(SealedPayload(damaged), [ONE]),
        lambda: sealing.unseal_stream(io.BytesIO(damaged), io.BytesIO(), [ONE]),
    ):
        with pytest.raises(RefusedError) as caught:
            opening()
        assert caught.value.reason is Reason.SEAL_INVALID


class FullDisk(io.BytesIO):
    def write(self, content: object) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_not_called_a_forgery() -> None:
    sealed = sealing.seal(b"x" * CHUNK, [sealing.recipient_of(ONE)]).content
    with pytest.raises(OSError, match="No space left"):
        sealing.unseal_stream(io.BytesIO(sealed), FullDisk(), [ONE])
    with pytest.raises(OSError, match="No space left"):
        sealing.seal_stream(io.BytesIO(b"x" * CHUNK), FullDisk(), [sealing.recipient_of(ONE)])


@pytest.mark.parametrize("text", ["", "age1", "ssh-ed25519 AAAA", ONE], ids=["empty", "cut", "ssh", "secret"])
def test_a_malformed_recipient_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        sealing.seal(b"", [text])
    assert caught.value.reason is Reason.KEY_INVALID


def test_a_malformed_secret_is_not_repeated() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        sealing.read_identities("# made by hand\nAGE-SECRET-KEY-1OOPS\n")
    assert "OOPS" not in str(caught.value)


def test_at_least_one_recipient_is_needed() -> None:
    with pytest.raises(InvalidArgumentError, match="1 to 64 recipients"):
        sealing.seal(b"", [])


def test_the_age_tool_opens_what_is_sealed_here_and_the_other_way_round(tmp_path: Path) -> None:
    content = b"a result" * 20_000
    key, sealed = tmp_path / "key.txt", tmp_path / "result.age"
    key.write_text(f"# researcher\n{ONE}\n")
    sealed.write_bytes(sealing.seal(content, [sealing.recipient_of(ONE), sealing.recipient_of(TWO)]).content)
    assert subprocess.run(["age", "-d", "-i", key, sealed], capture_output=True, check=True).stdout == content
    made = subprocess.run(
        ["age", "-r", sealing.recipient_of(ONE)], input=content, capture_output=True, check=True
    ).stdout
    assert sealing.unseal(SealedPayload(made), sealing.read_identities(key.read_text())) == content
