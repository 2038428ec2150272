"""Policies about images for tests: keys in files, rules as a configuration has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import cosign
from vantage.node.config import PolicySection
from vantage.node.image_sections import with_files
from vantage.node.images.rules import ImagePolicy, load_policy


def write_policy(
    directory: Path,
    keys: Mapping[str, ec.EllipticCurvePrivateKey],
    rules: list[dict[str, Any]],
    *,
    about: Mapping[str, dict[str, Any]] | None = None,
    revoked: Mapping[str, list[str]] | None = None,
) -> ImagePolicy:
    """A policy as it is loaded from a configuration.

    Args:
        directory: gets the files of the keys.
        keys: by name; a rule without ``keys`` trusts all of them.
        rules: as under ``policy.images``.
        about: role and expiry of keys, by name.
        revoked: as under ``policy.revoked``.
    """
    sections: dict[str, Any] = {}
    for name, key in keys.items():
        path = directory / f"{name}.pub"
        path.write_bytes(cosign.public_pem(key.public_key()))
        sections[name] = {"file": path, **(about or {}).get(name, {})}
    complete = [{"keys": list(keys), **rule} for rule in rules]
    section = PolicySection.model_validate({"keys": sections, "images": complete, "revoked": revoked or {}})
    files = with_files(section.keys, section.images, directory)
    return load_policy(section.model_copy(update={"keys": files}))
