from __future__ import annotations

import ipaddress
import ssl

import pytest

from vantage.common.errors import Reason, VantageError
from vantage.common.hosts import join_host, normal_host, split_host
from vantage.node.egress.rules import check_addresses, is_public
from vantage.node.egress.sections import EgressRule
from vantage.node.egress.tls import ClientHello, NotTlsError


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("172.31.255.255", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("0.0.0.0", False),  # noqa: S104
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::5db8:d822", False),
        ("::10.0.0.1", False),
        ("fec0::1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    rule = EgressRule(host="api.example.org", port=443)
    check_addresses(rule, ["93.184.216.34"])
    with pytest.raises(VantageError) as caught:
        check_addresses(rule, ["93.184.216.34", "fe80::1%eth0"])
    assert caught.value.reason is Reason.EGRESS_REFUSED
    check_addresses(rule.model_copy(update={"allow_private": True}), ["10.0.0.1"])
    check_addresses(EgressRule(host="10.0.0.1", port=443), ["10.0.0.1"])


def test_hosts_are_compared_in_one_form() -> None:
    assert normal_host("API.Example.org.") == "api.example.org"
    assert normal_host("[2001:DB8:0::1]") == "2001:db8::1"
    assert join_host(*split_host("[::1]:80")) == "[::1]:80"
    for wrong in ("*.example.org", "a..b", "-a.org", "", "example.org/x", "127.1", "0x7f.1", "a b", "ex\u0430mple.org"):
        with pytest.raises(ValueError):
            normal_host(wrong)
    for wrong in ("example.org", "example.org:0", "example.org:65536", ":80", "example.org:8\u0660"):
        with pytest.raises(ValueError):
            split_host(wrong)


def hello(name: str | None) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def taken(*parts: bytes) -> ClientHello:
    found = ClientHello()
    for part in parts:
        assert not found.complete
        found.take(part)
    return found


def test_the_server_name_is_read_from_the_first_bytes() -> None:
    whole = hello("api.example.org")
    for parts in ([whole], [whole[:1], whole[1:]], [bytes([each]) for each in whole], [whole + b"more"]):
        found = taken(*parts)
        assert (found.complete, found.name) == (True, "api.example.org")
    assert not taken(whole[:-1]).complete
    unnamed = taken(hello(None))
    assert (unnamed.complete, unnamed.name) == (True, None)
    for other in (b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", bytes(100)):
        found = ClientHello()
        for part in (other, whole):  # what comes later mends nothing
            with pytest.raises(NotTlsError):
                found.take(part)
    with pytest.raises(NotTlsError):
        taken(whole[:10], b"GET / HTTP/1.1\r\n\r\n" * 100)
