"""Sections of the configuration that say which images may run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from vantage.common import names, predicate_types
from vantage.node.fields import OrganizationName, Section

Location = tuple[int | str, ...]

KINDS = {
    "provenance": (predicate_types.ATTESTATIONS["provenance"],),
    "sbom": (predicate_types.ATTESTATIONS["spdx"], predicate_types.ATTESTATIONS["cyclonedx"]),
    "vulnerabilities": (predicate_types.ATTESTATIONS["vulnerabilities"],),
}
"""Short names of predicate types: one of them suffices."""


def _user(text: str) -> str:
    kind, full = "organizations/users", text
    match text.count("/"):
        case 0:
            kind, full = "users", f"users/{text}"
        case 1 if text.startswith("users/"):
            kind = "users"
        case 1:
            organization, _, login = text.partition("/")
            full = f"organizations/{organization}/users/{login}"
    if not names.is_valid(full, kind):
        raise ValueError("must be a user like dora/alice, or alice for one of that name in any organization")
    return full


def lists_user(users: Collection[str], organization: str, login: str) -> bool:
    """Whether users, as a configuration keeps them, include the one of this login in an organization."""
    return bool(login) and not {f"users/{login}", f"{organization}/users/{login}"}.isdisjoint(users)


def _schema(document: dict[str, Any]) -> dict[str, Any]:
    import jsonschema
    from jsonschema.exceptions import SchemaError

    try:
        jsonschema.Draft202012Validator.check_schema(document)
    except SchemaError as problem:
        raise ValueError(f"must be a JSON Schema, like {{minimum: 10}}: {problem.message[:200]}") from None
    if "$ref" in json.dumps(document) or "$dynamicRef" in json.dumps(document):
        raise ValueError("must be a JSON Schema of its own: it cannot refer to others ($ref)")
    return document


RuleUser = Annotated[str, AfterValidator(_user)]
"""``organizations/dora/users/alice``, or ``users/alice`` for whoever is called so in any organization."""
Role = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Schema = Annotated[dict[str, Any], AfterValidator(_schema)]
KeyNames = Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
"""Names under ``policy.keys``, or files of public keys."""


class KeySection(Section):
    """A public key that images may be signed with. From the day ``expires`` on (UTC) its signatures do not count."""

    file: Path
    role: Role | None = None
    expires: date | None = None


class AttestationSection(Section):
    """A kind of attestation that must lie with an image, signed by enough of these keys, or of the rule's."""

    type: str = Field(min_length=1, max_length=500)
    keys: KeyNames | None = None
    threshold: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _known(self) -> AttestationSection:
        if self.type not in KINDS and "://" not in self.type:
            raise ValueError(f"type must be one of {', '.join(KINDS)}, or the URI of a predicate type")
        return self

    @property
    def predicates(self) -> tuple[str, ...]:
        """The predicate types that it means."""
        return KINDS.get(self.type, (self.type,))


class ImageRule(Section):
    """Images of repositories that match may run when all of this holds. From the day ``expires`` on it allows none."""

    repository: str = Field(min_length=1, max_length=500)
    keys: KeyNames
    threshold: int = Field(default=1, ge=1)
    roles: dict[Role, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    signed_as: tuple[str, ...] = ()
    functions: tuple[str, ...] | None = None
    arguments: dict[str, Schema] = Field(default_factory=dict)
    organizations: tuple[OrganizationName, ...] | None = None
    users: tuple[RuleUser, ...] | None = None
    attestations: tuple[AttestationSection, ...] = Field(default=(), max_length=20)
    expires: date | None = None

    @model_validator(mode="after")
    def _reachable(self) -> ImageRule:
        if self.threshold > len(self.keys):
            raise ValueError(f"threshold {self.threshold} cannot be met with {len(self.keys)} keys")
        return self


class RevokedSection(Section):
    """What is never believed, whatever a rule says: keys by fingerprint, images by digest (of manifest or config)."""

    keys: tuple[Digest, ...] = Field(default=(), max_length=10_000)
    digests: tuple[Digest, ...] = Field(default=(), max_length=10_000)


def with_files(keys: dict[str, KeySection], rules: tuple[ImageRule, ...], base: Path) -> dict[str, KeySection]:
    """The keys by name, and those that rules name by file, which get the file's text as their name.

    Args:
        keys: with absolute paths.
        rules: may name files.
        base: directory that relative files count from.
    """
    named = {each: None for rule in rules for each in _named(rule)}
    return {**{each: KeySection(file=base / Path(each).expanduser()) for each in named}, **keys}


def misfits(
    declared: dict[str, KeySection], keys: dict[str, KeySection], rules: tuple[ImageRule, ...]
) -> Iterator[tuple[Location, str]]:
    """What does not fit together, with its place below ``policy``.

    Args:
        declared: keys that have a name.
        keys: those and the ones that rules name by file, see ``with_files``.
        rules: that use them.
    """
    for name, key in declared.items():
        if not key.file.is_file():
            yield ("keys", name, "file"), f"there is no file {key.file}"
    unknown = {name: key.file for name, key in keys.items() if name not in declared and not key.file.is_file()}
    for index, rule in enumerate(rules):
        place: Location = ("images", index)
        yield from _unknown(unknown, rule.keys, (*place, "keys"))
        for role, wanted in rule.roles.items():
            have = sum(keys[each].role == role for each in set(rule.keys))
            if have < wanted:
                yield (*place, "roles", role), f"{wanted} cannot be met: {have} of the rule's keys have that role"
        for position, each in enumerate(rule.attestations):
            at = (*place, "attestations", position)
            yield from _unknown(unknown, each.keys or (), (*at, "keys"))
            have = len(set(each.keys or rule.keys))
            if each.threshold > have:
                yield (*at, "threshold"), f"{each.threshold} cannot be met with {have} keys"


def _unknown(unknown: dict[str, Path], entries: tuple[str, ...], place: Location) -> Iterator[tuple[Location, str]]:
    for position, name in enumerate(entries):
        if name in unknown:
            yield (*place, position), f"there is no file {unknown[name]}, and no key of that name in policy.keys"


def _named(rule: ImageRule) -> set[str]:
    return {*rule.keys, *(each for one in rule.attestations for each in one.keys or ())}
