"""Resource names in the style of google AIP-122, and ids.

``organizations/{organization}``, ``organizations/{organization}/nodes/{node}``, ``users/{user}``, ``roles/{role}``,
``organizations/{organization}/roles/{role}``, ``collaborations/{collaboration}/studies/{study}``,
``collaborations/{collaboration}``, ``tasks/{task}``, ``tasks/{task}/runs/{run}``, ``payloads/{payload}``. A certificate
of a user says ``organizations/{organization}/users/{user}``: it is the organization that vouches for the name.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from dataclasses import dataclass

from vantage.common.errors import Reason, error

_CHOSEN = r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])"
_LOGIN = r"[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

_SEGMENTS = {
    "organizations": _CHOSEN,
    "nodes": _CHOSEN,
    "collaborations": _CHOSEN,
    "studies": _CHOSEN,
    "roles": _CHOSEN,
    "users": _LOGIN,
    "tasks": _UUID,
    "runs": _UUID,
    "payloads": _UUID,
}
_PATTERNS = {
    kind: re.compile("/".join(f"{part}/({_SEGMENTS[part]})" for part in kind.split("/")))
    for kind in (
        "organizations",
        "organizations/nodes",
        "organizations/users",
        "organizations/roles",
        "collaborations",
        "collaborations/studies",
        "roles",
        "users",
        "tasks",
        "tasks/runs",
        "payloads",
    )
}

_SINGULAR = {"studies": "study"}


@dataclass(frozen=True)
class Name:
    """A parsed resource name; ``str(name)`` is the text that was parsed.

    Attributes:
        kind: collection path, e.g. ``organizations/nodes``.
        ids: the ids, outermost first.
    """

    kind: str
    ids: tuple[str, ...]

    def __str__(self) -> str:
        return "/".join(f"{part}/{id_}" for part, id_ in zip(self.kind.split("/"), self.ids, strict=True))

    @property
    def id(self) -> str:
        """The innermost id."""
        return self.ids[-1]

    @property
    def parent(self) -> Name:
        """The name without its last collection."""
        return Name(self.kind.rsplit("/", 1)[0], self.ids[:-1])


def parse(text: str, kind: str, *, field: str = "name") -> Name:
    """Parse a resource name of a given kind.

    Args:
        text: what was received.
        kind: collection path, e.g. ``tasks/runs``.
        field: name of the request's field, for the message.

    Raises:
        InvalidArgumentError: when the text is not such a name.
    """
    match = _PATTERNS[kind].fullmatch(text)
    if match is None:
        shape = "/".join(f"{part}/{{{_SINGULAR.get(part, part[:-1])}}}" for part in kind.split("/"))
        raise error(Reason.INVALID_ARGUMENT, f"{field} must have the form {shape}, got {text[:120]!r}", field=field)
    return Name(kind, match.groups())


def is_valid(text: str, kind: str) -> bool:
    """Whether ``text`` is a resource name of this kind."""
    return _PATTERNS[kind].fullmatch(text) is not None


def new_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random, so that ids sort by creation."""
    milliseconds = time.time_ns() // 1_000_000
    value = int.from_bytes(milliseconds.to_bytes(6, "big") + os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def parse_request_id(text: str) -> str:
    """Check the ``request_id`` of a request and return its canonical text.

    Raises:
        InvalidArgumentError: when it is not a UUID.
    """
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise error(
            Reason.INVALID_ARGUMENT, "request_id must be a UUID that is new for each request", field="request_id"
        ) from None
