"""A network as a document: what ``vantage export`` writes and ``vantage apply`` brings a server to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vantage.client.models import Permission
from vantage.common import pki
from vantage.common.errors import Reason, error

if TYPE_CHECKING:
    from vantage.client import Client

_ETAG = "etag"
"""Which version was seen; no part of the document."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str | None = None


class OrganizationPart(_Part):
    """An organization. ``certificates`` are PEM texts, or files relative to the document."""

    certificates: tuple[str, ...] | None = None


class CollaborationPart(_Part):
    """A collaboration and whom it invites."""

    organizations: tuple[str, ...] = ()


class StudyPart(_Part):
    """A study and exactly its organizations."""

    organizations: tuple[str, ...] = Field(min_length=1)


class NodePart(BaseModel):
    """A node and exactly what it serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    collaborations: tuple[str, ...] | None = None


class RolePart(BaseModel):
    """A role and exactly its permissions, each ``resource:operation:scope``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str | None = None
    permissions: tuple[str, ...] | None = None


class UserPart(_Part):
    """A user and exactly their roles. ``service_account`` is a program's; of others it is not there, or false."""

    organization: str | None = None
    service_account: bool | None = None
    roles: tuple[str, ...] | None = None


class Network(BaseModel):
    """The document. What it does not name is left alone, also of what it names: None is what is not there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    organizations: dict[str, OrganizationPart] = {}
    roles: dict[str, RolePart] = {}
    collaborations: dict[str, CollaborationPart] = {}
    studies: dict[str, StudyPart] = {}
    nodes: dict[str, NodePart] = {}
    users: dict[str, UserPart] = {}


@dataclass(frozen=True)
class Change:
    """One step: what it does, for people, and how. What ``run`` returns as a text is to be told them."""

    sign: str
    what: str
    run: Callable[[Client], object]

    def __str__(self) -> str:
        return f"{self.sign} {self.what}"


def load(path: Path) -> Network:
    """Read a document.

    Raises:
        ConfigurationError: with the field and what is wrong with it.
    """
    try:
        network = Network.model_validate(yaml.safe_load(path.read_text("utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise error(Reason.CONFIGURATION_INVALID, f"{path} cannot be read: {problem}") from problem
    except ValidationError as problem:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in problem.errors()]
        raise error(Reason.CONFIGURATION_INVALID, f"{path}: " + "; ".join(lines)) from problem
    organizations = {
        name: part.model_copy(update={"certificates": _pems(part.certificates, path.parent)})
        for name, part in network.organizations.items()
    }
    return network.model_copy(update={"organizations": organizations})


def export(client: Client) -> dict[str, Any]:
    """What the server has, as far as the caller sees it, as a document that ``load`` reads."""
    found = _seen(client)
    return {
        kind: {name: {field: each[field] for field in each if field != _ETAG} for name, each in parts.items()}
        for kind, parts in found.items()
    }


def _seen(client: Client) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        "organizations": {
            _short(each.name): {
                "title": each.display_name,
                "certificates": list(each.ca_certificates),
                _ETAG: each.etag,
            }
            for each in client.organizations.list()
        },
        "roles": {
            _role(each.name): {
                "description": each.description,
                "permissions": sorted(map(permission_text, each.permissions)),
                _ETAG: each.etag,
            }
            for each in client.roles.list()
            if not each.builtin
        },
        "collaborations": {
            _short(each.name): {
                "title": each.display_name,
                "organizations": [_short(member.organization) for member in each.members],
                _ETAG: each.etag,
            }
            for each in client.collaborations.list()
        },
        "studies": {
            _pair(each.name): {
                "title": each.display_name,
                "organizations": [_short(name) for name in each.organizations],
                _ETAG: each.etag,
            }
            for each in client.studies.list()
        },
        "nodes": {
            _pair(each.name): {"collaborations": [_short(name) for name in each.collaborations], _ETAG: each.etag}
            for each in client.nodes.list()
        },
        "users": {
            _short(each.name): {
                "title": each.display_name,
                "organization": _short(each.organization),
                "roles": [_role(name) for name in each.roles],
                **({"service_account": True} if each.service_account else {}),
                _ETAG: each.etag,
            }
            for each in client.users.list()
        },
    }


def plan(client: Client, wanted: Network) -> list[Change]:
    """The steps that bring the server to the described state, in an order that works; none when it is there.

    What somebody else changes meanwhile is left alone, and its step fails with ETAG_MISMATCH: what is done is what was
    shown. Only of certificates, which have no etag at the server, a change in the moment of the step is not noticed.
    """
    has = _seen(client)

    def steps(kind: str, of_one: Callable[[str, Any, Any], Iterator[Change]]) -> Iterator[Change]:
        for name, part in getattr(wanted, kind).items():
            yield from of_one(name, part, has[kind].get(name))

    return [
        *steps("organizations", _organization),
        *steps("roles", _role_steps),
        *steps("collaborations", _collaboration),
        *steps("studies", _study),
        *steps("nodes", _node),
        *steps("users", _user),
    ]


def permission_text(each: Permission) -> str:
    """A permission as documents and command lines have it."""
    return f"{each.resource}:{each.operation}:{each.scope}".lower()


def parse_permission(text: str) -> Permission:
    """``resource:operation:scope``.

    Raises:
        InvalidArgumentError: it is not of that form.
    """
    parts = text.split(":")
    if len(parts) != 3:
        raise error(
            Reason.INVALID_ARGUMENT, f"{text!r} is no permission: write resource:operation:scope, as in task:view:own"
        )
    return Permission(*(part.strip().upper() for part in parts))


def _organization(name: str, part: OrganizationPart, has: Any) -> Iterator[Change]:
    pems = part.certificates or ()
    if has is None:
        yield Change(
            "+", f"organization {name}", lambda client: client.organizations.create(name, part.title or "", pems)
        )
        return
    if part.title not in (None, has["title"]):
        yield Change(
            "~",
            f"organization {name}: title {part.title!r}",
            lambda client: client.organizations.update(name, part.title, has[_ETAG]),
        )
    if part.certificates is not None and list(pems) != has["certificates"]:
        yield Change(
            "~",
            f"organization {name}: {len(pems)} certificates of its authority",
            lambda client: _set_certificates(client, name, has["certificates"], pems),
        )


def _set_certificates(client: Client, name: str, shown: list[str], pems: tuple[str, ...]) -> None:
    if list(client.organizations.get(name).ca_certificates) != shown:
        raise error(
            Reason.ETAG_MISMATCH, f"somebody changed the certificates of {name} meanwhile: look at the difference again"
        )
    client.organizations.set_ca_certificates(name, pems)


def _role_steps(name: str, part: RolePart, has: Any) -> Iterator[Change]:
    permissions = None if part.permissions is None else [parse_permission(each) for each in part.permissions]
    texts = None if permissions is None else sorted(map(permission_text, permissions))
    if has is None:
        owner, _, own = name.rpartition("/")
        yield Change(
            "+",
            f"role {name}: {', '.join(texts or ()) or 'no permissions'}",
            lambda client: client.roles.create(own, permissions or (), owner, part.description or ""),
        )
    elif texts not in (None, has["permissions"]) or part.description not in (None, has["description"]):
        yield Change(
            "~",
            f"role {name}: {_difference(has['permissions'], texts)}",
            lambda client: client.roles.update(name, part.description, permissions, has[_ETAG]),
        )


def _collaboration(name: str, part: CollaborationPart, has: Any) -> Iterator[Change]:
    if has is None:
        yield Change(
            "+",
            f"collaboration {name}, inviting {', '.join(part.organizations) or 'nobody'}",
            lambda client: client.collaborations.create(name, part.organizations, part.title or ""),
        )
        return
    if part.title not in (None, has["title"]):
        yield Change(
            "~",
            f"collaboration {name}: title {part.title!r}",
            lambda client: client.collaborations.update(name, part.title, has[_ETAG]),
        )
    yield from (_invite(name, each) for each in part.organizations if each not in has["organizations"])


def _invite(name: str, organization: str) -> Change:
    return Change(
        "~",
        f"collaboration {name}: invite {organization}",
        lambda client: client.collaborations.add_member(name, organization),
    )


def _study(name: str, part: StudyPart, has: Any) -> Iterator[Change]:
    organizations = sorted(part.organizations)
    if has is None:
        yield Change(
            "+",
            f"study {name} of {', '.join(organizations)}",
            lambda client: client.studies.create(name, organizations, display_name=part.title or ""),
        )
    elif organizations != sorted(has["organizations"]) or part.title not in (None, has["title"]):
        yield Change(
            "~",
            f"study {name}: {_difference(has['organizations'], organizations)}",
            lambda client: client.studies.update(name, part.title, organizations, has[_ETAG]),
        )


def _node(name: str, part: NodePart, has: Any) -> Iterator[Change]:
    served = None if part.collaborations is None else sorted(part.collaborations)
    if has is None:
        yield Change(
            "+",
            f"node {name}, serving {', '.join(served or ()) or 'nothing'}",
            lambda client: client.nodes.create(name, collaborations=served or ()),
        )
    elif served not in (None, sorted(has["collaborations"])):
        yield Change(
            "~",
            f"node {name}: {_difference(has['collaborations'], served)}",
            lambda client: client.nodes.update(name, served, has[_ETAG]),
        )


def _user(name: str, part: UserPart, has: Any) -> Iterator[Change]:
    roles = None if part.roles is None else sorted(part.roles)
    if has is None:
        yield Change(
            "+",
            f"{'service account' if part.service_account else 'user'} {name} of "
            f"{part.organization or 'the server'}: {', '.join(roles or ()) or 'no roles'}",
            lambda client: _create_user(client, name, part),
        )
        return
    if part.organization not in (None, has["organization"]):
        raise error(
            Reason.CONFIGURATION_INVALID,
            f"users.{name}.organization: {name} is a user of {has['organization'] or 'the server'}; "
            "users do not move: delete the user first",
        )
    if part.service_account not in (None, has.get("service_account", False)):
        raise error(
            Reason.CONFIGURATION_INVALID,
            f"users.{name}.service_account: a person does not become a program, nor a program a person: "
            "delete the user first",
        )
    if roles not in (None, sorted(has["roles"])) or part.title not in (None, has["title"]):
        yield Change(
            "~",
            f"user {name}: {_difference(has['roles'], roles)}",
            lambda client: client.users.update(name, part.title, roles, has[_ETAG]),
        )


def _create_user(client: Client, name: str, part: UserPart) -> str | None:
    if part.service_account:
        client.users.create_service_account(name, part.organization or "", part.roles or (), part.title or "")
        return None
    invited = client.users.invite(name, part.organization or "", part.roles or (), part.title or "")
    return f"token with which {name} sets a password ('vantage password reset'): {invited.reset_token}"


def _difference(old: list[str], new: list[str] | None) -> str:
    if new is None:
        return "texts for people"
    steps = [*(f"+{each}" for each in new if each not in old), *(f"-{each}" for each in old if each not in new)]
    return " ".join(steps) or "texts for people"


def _pems(certificates: tuple[str, ...] | None, directory: Path) -> tuple[str, ...] | None:
    if certificates is None:
        return None
    found = []
    for each in certificates:
        text = each
        if not each.startswith("-----BEGIN"):
            try:
                text = (directory / each).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as problem:
                raise error(Reason.CONFIGURATION_INVALID, f"certificate {each} cannot be read: {problem}") from problem
        # As the server keeps them: other tools write other line ends, and texts for people before them.
        found += [pki.to_pem(certificate) for certificate in pki.load_certificates(text)]
    return tuple(found)


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _pair(name: str) -> str:
    """``collaborations/lungs/studies/pilot`` is ``lungs/pilot``."""
    _, owner, _, own = name.split("/")
    return f"{owner}/{own}"


def _role(name: str) -> str:
    return _pair(name) if name.startswith("organizations/") else _short(name)
