"""Names as people type them, short or full, to full resource names."""

from __future__ import annotations

from vantage.common import names


def full(kind: str, text: str, *, field: str = "name") -> str:
    """The resource name of a top-level resource: ``clara`` and ``organizations/clara`` are the same.

    Raises:
        InvalidArgumentError: it is no such name.
    """
    return str(names.parse(text if "/" in text else f"{kind}/{text}", kind, field=field))


def full_node(text: str, organization: str = "", *, field: str = "node") -> str:
    """The resource name of a node: ``organizations/clara/nodes/clara-1``, ``clara/clara-1``, or with the organization
    known ``clara-1``.

    Raises:
        InvalidArgumentError: it is no such name.
    """
    if "/" not in text and organization:
        text = f"{organization}/nodes/{text}"
    elif text.count("/") == 1:
        owner, _, own = text.partition("/")
        text = f"organizations/{owner}/nodes/{own}"
    return str(names.parse(text, "organizations/nodes", field=field))


def full_role(text: str, *, field: str = "name") -> str:
    """The resource name of a role: ``researcher``, or ``clara/auditor`` for one of an organization.

    Raises:
        InvalidArgumentError: it is no such name.
    """
    if text.count("/") == 1 and not text.startswith("roles/"):
        owner, _, own = text.partition("/")
        text = f"organizations/{owner}/roles/{own}"
    return full("organizations/roles" if text.startswith("organizations/") else "roles", text, field=field)


def full_study(text: str, collaboration: str = "", *, field: str = "name") -> str:
    """The resource name of a study: ``lungs/pilot``, or with the collaboration known ``pilot``.

    Raises:
        InvalidArgumentError: it is no such name.
    """
    if "/" not in text and collaboration:
        text = f"{collaboration}/studies/{text}"
    elif text.count("/") == 1:
        parent, _, own = text.partition("/")
        text = f"collaborations/{parent}/studies/{own}"
    return str(names.parse(text, "collaborations/studies", field=field))


def bare(kind: str, text: str) -> str:
    """The last part of a name, for requests that create: ``organizations/clara`` and ``clara`` are the same."""
    return text.removeprefix(f"{kind}/")
