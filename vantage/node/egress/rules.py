"""What the data owner allows of hosts outside: pure rules.

Numbered checks before a run is connected with a host: (1) its function declares host and port, (2) a rule lists exactly
that host and port for its image, (3) none of the host's addresses is private, unless the rule says so or names an
address. The node connects to one of the addresses that were checked: the name is not resolved again. (4) With
``tls_server_name``, the first bytes must be a TLS ClientHello for that name; see ``vantage.node.egress.tls``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from vantage.common.declaration import Function
from vantage.common.errors import Reason, error
from vantage.common.hosts import normal_host, split_host
from vantage.common.repository_patterns import matches
from vantage.node.config import PolicySection
from vantage.node.egress.sections import EgressRule

# The last four bytes are an IPv4 address: NAT64 (RFC 6052), and "IPv4-compatible" ones (RFC 4291, 2.5.5.1).
_EMBEDDING = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
# Local, but not to every version of Python: NAT64 of one's own (RFC 8215), and site-local addresses (RFC 3879).
_LOCAL = (ipaddress.ip_network("64:ff9b:1::/48"), ipaddress.ip_network("fec0::/10"))
# Public by its number, and answers every virtual machine of its cloud.
_METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def allowed_hosts(policy: PolicySection, image: str, function: Function) -> tuple[str, ...]:
    """Hosts that a function declares and the policy allows its image: ``HOST:PORT``."""
    return tuple(each for each in function.egress if _rule(policy, image, *split_host(each)) is not None)


def rule_for(policy: PolicySection, node: str, image: str, declared: Sequence[str], host: str, port: int) -> EgressRule:
    """The rule under which a run may be connected with a host.

    Args:
        policy: the node's.
        node: its name, for people.
        image: that runs, by digest.
        declared: what its function declares.
        host: as the algorithm wrote it.
        port: likewise.

    Raises:
        VantageError: EGRESS_REFUSED.
    """
    try:
        wanted = normal_host(host)
    except ValueError as problem:
        raise error(Reason.EGRESS_REFUSED, f"{host[:100]!r} {problem}") from None
    # (1)
    if (wanted, port) not in {split_host(each) for each in declared}:
        raise error(
            Reason.EGRESS_REFUSED,
            f"the function does not declare that it connects to {wanted}:{port}: its author adds it, and the image is "
            "signed again",
            host=wanted,
        )
    # (2)
    found = _rule(policy, image, wanted, port)
    if found is None:
        raise error(
            Reason.EGRESS_REFUSED,
            f"the policy of {node} does not let this image connect to {wanted}:{port}: ask its admin (policy.egress)",
            host=wanted,
        )
    return found


def check_addresses(rule: EgressRule, addresses: Iterable[str]) -> None:
    """Refuse a host that leads into the node's own network.

    Raises:
        VantageError: EGRESS_REFUSED.
    """
    # (3)
    if rule.allow_private or _is_address(rule.host):
        return
    for each in addresses:
        if not is_public(ipaddress.ip_address(each.partition("%")[0])):
            raise error(
                Reason.EGRESS_REFUSED,
                f"{rule.host} is at a private address: ask the node's admin (allow_private)",
                host=rule.host,
            )


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet: not private, loopback, link-local, multicast or metadata."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in each for each in _EMBEDDING):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if any(address in each for each in _LOCAL):
            return False
    return address.is_global and not address.is_multicast and address not in _METADATA


def _rule(policy: PolicySection, image: str, host: str, port: int) -> EgressRule | None:
    repository = image.partition("@")[0]
    for rule in policy.egress:
        if (rule.host, rule.port) == (host, port) and (rule.images is None or matches(rule.images, repository)):
            return rule
    return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
