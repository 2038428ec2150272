"""TLS from node to node over a relay that does what it likes."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.node.tunnels.wires import MemoryWire, wires
from vantage.common import pki
from vantage.common.errors import Reason, VantageError, error
from vantage.node.tunnels import secure
from vantage.node.tunnels.secure import SecureWire, tls_context

SECRET = b"the sum of hospital clara is 4711 " * 1_000


@dataclass
class Node:
    """Key and certificate of a node, and the authority that it has them from."""

    name: str
    key: Path
    certificate: Path
    authority: str

    @classmethod
    def create(cls, directory: Path, organization: str, node: str = "one") -> Node:
        authority = pki.CertificateAuthority.create(directory / organization, f"organizations/{organization}")
        return cls.issue(directory, authority, node)

    @classmethod
    def issue(cls, directory: Path, authority: pki.CertificateAuthority, node: str) -> Node:
        name = f"{authority.organization}/nodes/{node}"
        key, paths = pki.create_key(), directory / name.replace("/", "-")
        pki.write_key(paths.with_suffix(".key"), key)
        paths.with_suffix(".pem").write_text(pki.to_pem(authority.issue(name, key.public_key())))
        return cls(name, paths.with_suffix(".key"), paths.with_suffix(".pem"), pki.to_pem(authority.certificate))


@pytest.fixture
def clara(tmp_path: Path) -> Node:
    return Node.create(tmp_path, "clara")


@pytest.fixture
def hilda(tmp_path: Path) -> Node:
    return Node.create(tmp_path, "hilda")


def named(certificate: bytes) -> str:
    (uri,) = (
        x509.load_der_x509_certificate(certificate)
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value.get_values_for_type(x509.UniformResourceIdentifier)
    )
    return str(uri).removeprefix(pki.URI_PREFIX)


def expect(name: str) -> Callable[[bytes], None]:
    def check(certificate: bytes) -> None:
        if named(certificate) != name:
            raise error(Reason.CERTIFICATE_UNTRUSTED, f"{named(certificate)} is not {name}")

    return check


async def shake(
    one: MemoryWire,
    other: MemoryWire,
    opener: Node,
    answerer: Node,
    *,
    opener_trusts: str = "",
    answerer_trusts: str = "",
    expected: str = "",
) -> tuple[SecureWire, SecureWire]:
    """Both handshakes; raises the first error."""
    client = tls_context(opener.certificate, opener.key, opener_trusts or answerer.authority, server_side=False)
    server = tls_context(answerer.certificate, answerer.key, answerer_trusts or opener.authority, server_side=True)
    left, right = await asyncio.gather(
        SecureWire.handshake(one, client, expect(expected or answerer.name), server_side=False),
        SecureWire.handshake(other, server, expect(opener.name), server_side=True),
        return_exceptions=True,
    )
    for each in (right, left):
        if isinstance(each, BaseException) and not _is_consequence(each):
            raise each
    for each in (right, left):
        if isinstance(each, BaseException):
            raise each
    assert isinstance(left, SecureWire)
    assert isinstance(right, SecureWire)
    return left, right


def _is_consequence(problem: BaseException) -> bool:
    return isinstance(problem, VantageError) and problem.reason is Reason.RELAY_PEER_LOST


async def test_what_is_sent_arrives_and_nothing_of_it_is_seen(clara: Node, hilda: Node) -> None:
    one, other = wires()
    left, right = await shake(one, other, clara, hilda)
    assert left._tls.version() == right._tls.version() == "TLSv1.3"
    receiving = asyncio.create_task(read(right, len(SECRET)))
    await left.send(SECRET)
    assert await receiving == SECRET
    receiving = asyncio.create_task(read(left, 9))
    await right.send(SECRET[:9])
    assert await receiving == SECRET[:9]
    seen = b"".join(one.outgoing.passed + one.incoming.passed)
    assert len(seen) > len(SECRET)
    for start in range(0, len(SECRET), 97):
        assert SECRET[start : start + 16] not in seen
    # Not even who talks: certificates are sealed in TLS 1.3.
    assert b"clara" not in seen


async def read(wire: SecureWire, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += await wire.receive()
    return found


def flip(data: bytes) -> list[bytes]:
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return [bytes(changed)]


class Swap:
    """Holds one message back and hands on the next before it."""

    def __init__(self) -> None:
        self.held: bytes | None = None

    def __call__(self, data: bytes) -> list[bytes]:
        if self.held is None:
            self.held = data
            return []
        return [data, self.held]


class Drop:
    def __init__(self) -> None:
        self.dropped = False

    def __call__(self, data: bytes) -> list[bytes]:
        if self.dropped:
            return [data]
        self.dropped = True
        return []


HOSTILE: dict[str, Callable[[], Callable[[bytes], list[bytes]]]] = {
    "changes": lambda: flip,
    "repeats": lambda: lambda data: [data, data],
    "swaps": Swap,
    "drops": Drop,
    "inserts": lambda: lambda data: [os.urandom(100), data],
    "cuts short": lambda: lambda data: [data[:-1]],
}


@pytest.mark.parametrize("how", HOSTILE)
async def test_a_relay_that_touches_the_data_is_noticed(how: str, clara: Node, hilda: Node) -> None:
    one, other = wires()
    left, right = await shake(one, other, clara, hilda)
    one.outgoing.spoil = HOSTILE[how]()
    received: list[bytes] = []

    async def receive() -> None:
        while True:
            received.append(await right.receive())

    async def send() -> None:
        for number in range(8):
            await left.send(SECRET[number * 100 : number * 100 + 100])

    sending = asyncio.create_task(send())
    with pytest.raises(VantageError) as caught:
        await receive()
    await one.close()
    await asyncio.gather(sending, return_exceptions=True)
    assert caught.value.reason is Reason.RELAY_TAMPERED
    # What was handed on before is a true beginning of what was sent.
    assert SECRET.startswith(b"".join(received))


@pytest.mark.parametrize("how", ["changes", "repeats", "inserts", "cuts short"])
async def test_a_relay_that_touches_the_handshake_is_noticed(
    how: str, clara: Node, hilda: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure, "HANDSHAKE_SECONDS", 1.0)  # what is missing is waited for
    one, other = wires()
    one.incoming.spoil = HOSTILE[how]()
    client = tls_context(clara.certificate, clara.key, hilda.authority, server_side=False)
    server = tls_context(hilda.certificate, hilda.key, clara.authority, server_side=True)

    async def use(wire: MemoryWire, context: ssl.SSLContext, name: str, *, server_side: bool) -> None:
        made = await SecureWire.handshake(wire, context, expect(name), server_side=server_side)
        await made.send(b"hello")
        assert await made.receive() == b"hello"
        await wire.close()

    async with asyncio.timeout(30):
        results = await asyncio.gather(
            use(one, client, hilda.name, server_side=False),
            use(other, server, clara.name, server_side=True),
            return_exceptions=True,
        )
    reasons = {each.reason for each in results if isinstance(each, VantageError)}
    assert reasons & {Reason.RELAY_TAMPERED, Reason.RELAY_PEER_LOST}


async def test_the_end_cut_off_is_no_end(clara: Node, hilda: Node) -> None:
    one, other = wires()
    left, right = await shake(one, other, clara, hilda)
    await left.send(b"half of")
    assert await right.receive() == b"half of"
    other.incoming.spoil = lambda data: []
    await other.incoming.put(b"")
    await one.outgoing._queue.put(b"")  # what a transport reports as the end
    with pytest.raises(VantageError) as caught:
        await right.receive()
    assert caught.value.reason is Reason.RELAY_PEER_LOST


async def test_the_close_of_tls_is_the_end_however_it_arrives(clara: Node, hilda: Node) -> None:
    for together in (True, False):
        one, other = wires()
        left, right = await shake(one, other, clara, hilda)
        left._tls.write(b"last")
        sealed = [left._outgoing.read()]
        with pytest.raises(ssl.SSLWantReadError):
            left._tls.unwrap()  # says that nothing follows; the answer is not waited for
        sealed.append(left._outgoing.read())
        for each in [b"".join(sealed)] if together else sealed:
            await one.send(each)
        assert await right.receive() == b"last"
        assert await right.receive() == b""
        assert await right.receive() == b""


async def test_records_that_come_together_or_in_pieces_are_handed_on(clara: Node, hilda: Node) -> None:
    one, other = wires()
    left, right = await shake(one, other, clara, hilda)
    for number in range(3):
        left._tls.write(SECRET[number::3])
    sealed = left._outgoing.read()
    await one.send(sealed[:-7])
    found = await right.receive()
    await one.send(sealed[-7:])
    expected = b"".join(SECRET[number::3] for number in range(3))
    assert len(found) > len(expected) - 16 * 1024
    assert found + await right.receive() == expected


async def test_only_the_node_that_was_named_is_talked_to(clara: Node, hilda: Node, tmp_path: Path) -> None:
    stranger = Node.create(tmp_path / "elsewhere", "clara")
    beatrix = Node.create(tmp_path, "beatrix")
    authority = pki.CertificateAuthority.load(tmp_path / "hilda")
    other_node = Node.issue(tmp_path, authority, "two")
    for answerer, trusts, expected in (
        (beatrix, hilda.authority, hilda.name),  # another organization
        (stranger, clara.authority, stranger.name),  # same name, another authority
        (other_node, hilda.authority, hilda.name),  # right organization, another of its nodes
    ):
        with pytest.raises(VantageError) as caught:
            await shake(*wires(), clara, answerer, opener_trusts=trusts, expected=expected)
        assert caught.value.reason is Reason.CERTIFICATE_UNTRUSTED
    # The answering side looks as well.
    with pytest.raises(VantageError) as caught:
        await shake(*wires(), stranger, hilda, answerer_trusts=clara.authority)
    assert caught.value.reason is Reason.CERTIFICATE_UNTRUSTED


async def test_a_node_without_certificate_or_with_old_tls_gets_nothing(clara: Node, hilda: Node) -> None:
    server = tls_context(hilda.certificate, hilda.key, clara.authority, server_side=True)
    for maximum, certificate in ((ssl.TLSVersion.TLSv1_3, False), (ssl.TLSVersion.TLSv1_2, True)):
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.maximum_version = maximum
        client.load_verify_locations(cadata=hilda.authority)
        client.set_alpn_protocols(["vantage-peers/1"])
        if certificate:
            client.load_cert_chain(clara.certificate, clara.key)
        one, other = wires()
        results = await asyncio.gather(
            SecureWire.handshake(one, client, expect(hilda.name), server_side=False),
            SecureWire.handshake(other, server, expect(clara.name), server_side=True),
            return_exceptions=True,
        )
        assert isinstance(results[1], VantageError)
        assert results[1].reason in (Reason.RELAY_TAMPERED, Reason.CERTIFICATE_UNTRUSTED)
