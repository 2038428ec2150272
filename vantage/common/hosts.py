"""Hosts as they are written and compared."""

from __future__ import annotations

import ipaddress
import re

_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


def normal_host(host: str) -> str:
    """A host as it is compared: lower case, without the dot of the root; addresses in their shortest form.

    Raises:
        ValueError: it is neither a name nor an address.
    """
    text = host.strip().lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    # A name whose last part is a number would be taken for an address by some resolvers.
    if len(text) > 253 or _HOST.fullmatch(text) is None or text.rpartition(".")[2].isdigit():
        raise ValueError("must be a host name or an IP address; wildcards are not allowed")
    return text


def split_host(text: str) -> tuple[str, int]:
    """``HOST:PORT``, with brackets around an IPv6 address.

    Raises:
        ValueError: it is malformed.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError("must have the form HOST:PORT")
    return normal_host(host), int(port)


def join_host(host: str, port: int) -> str:
    """What ``split_host`` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
