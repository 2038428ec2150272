"""Everything that a reviewer should see of an image before signing it, each byte checked against the image's digest."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from vantage.client.bills import Bill, read_bills
from vantage.client.image_changes import (
    MAX_DIFF,
    Change,
    SettingChange,
    changes,
    is_small,
    setting_changes,
    with_text,
)
from vantage.client.image_files import LayerFiles, StoredLayer, apply, scan, texts
from vantage.common import blobs
from vantage.common.blobs import Transfer
from vantage.common.declaration import LABEL, Declaration
from vantage.common.errors import Reason, VantageError, error
from vantage.common.image_lookup import declaration_of
from vantage.common.image_manifest import ImageConfig, ImageManifest, read_config, read_manifest
from vantage.common.image_signing import read_statements
from vantage.common.image_statements import counts_for
from vantage.common.layers import Budget
from vantage.common.oci import ImageReference, Registry, json_object
from vantage.common.predicate_types import SIGNATURE

MAX_SIZE = 20 * 1024**3
"""Bytes of the layers of an image, as transported and unpacked."""
MAX_FILES = 500_000
MAX_LISTED = 100
"""Without an earlier image, the files of layers with at most so many are listed: those that an author adds."""


@dataclass(frozen=True)
class Layer:
    """A layer of the image.

    Attributes:
        digest: of the blob.
        size: in bytes, as transported.
        unpacked: in bytes.
        files: how many files, directories and links.
        created_by: the step of the build that made it, as its builder says.
        known: whether the earlier image has it too.
    """

    digest: str
    size: int
    unpacked: int
    files: int
    created_by: str
    known: bool


@dataclass(frozen=True)
class Signature:
    """A signature or attestation.

    Attributes:
        predicate: "signature", or the predicate type of an attestation.
        signer: name of the key among those that were given; empty when it is by none of them.
        layout: "classic", "bundle" or "envelope".
        made_for: other repositories, if the signer named only those: a node takes it under ``signed_as`` alone.
    """

    predicate: str
    signer: str
    layout: str
    made_for: Sequence[str] = ()


@dataclass(frozen=True)
class Review:
    """What there is to see of an image.

    Attributes:
        image: by digest.
        against: the earlier image, if one was named.
        declaration: what it says that it can do; None when it says nothing usable.
        problem: why, in that case.
        settings: what containers start with.
        layers: from the bottom to the top.
        setting_changes: settings that differ from the earlier image.
        changes: paths that differ from the earlier image; without one, files of small layers.
        bills: bills of materials.
        signatures: signatures and attestations that are about this image.
    """

    image: str
    against: str | None
    declaration: Declaration | None
    problem: str
    settings: Mapping[str, Any]
    layers: Sequence[Layer]
    setting_changes: Sequence[SettingChange]
    changes: Sequence[Change]
    bills: Sequence[Bill]
    signatures: Sequence[Signature]


@dataclass(frozen=True)
class _Image:
    """An image whose layers are here."""

    reference: ImageReference
    manifest: ImageManifest
    config: ImageConfig
    stored: tuple[StoredLayer, ...]
    looked: tuple[LayerFiles, ...]


async def review(
    registry: Registry,
    reference: ImageReference,
    earlier: tuple[Registry, ImageReference] | None,
    keys: Mapping[str, ec.EllipticCurvePublicKey],
    told: Transfer,
) -> Review:
    """Look at an image.

    Layers are kept in a temporary directory meanwhile; what they unpack to is only looked at.

    Args:
        registry: connection to the image's repository.
        reference: which image.
        earlier: connection to the repository of an earlier image, and which.
        keys: public keys to look for, by the name that is shown.
        told: hears of downloads.

    Raises:
        RefusedError: IMAGE_NOT_FOUND, IMAGE_NOT_ALLOWED, IMAGE_TAMPERED, IMAGE_TOO_LARGE.
        UnavailableError: REGISTRY_UNAVAILABLE.
        OSError: the temporary directory is full.
    """
    with tempfile.TemporaryDirectory(prefix="vantage-review-") as name:
        desk = _Desk(Path(name), told)
        after = await desk.fetch(registry, reference)
        before = None if earlier is None else await desk.fetch(*earlier)
        found = await read_statements(registry, reference, lambda _predicate: True)
        bills = await read_bills(registry, reference, found)
        differing = await asyncio.to_thread(lambda: list(desk.changes(before, after)))
    declaration, problem = _declaration(after)
    signatures = [
        Signature(
            "signature" if each.predicate == SIGNATURE else each.predicate,
            next((name for name, key in keys.items() if each.is_by(key)), ""),
            each.layout.value,
            () if counts_for(named := each.repositories(reference), reference.repository) else sorted(named),
        )
        for each in found.statements
        if each.is_about(reference)
    ]
    known = () if before is None else {each.digest for each in before.manifest.layers}
    steps = list(_steps(after))
    return Review(
        str(reference),
        None if before is None else str(before.reference),
        declaration,
        problem,
        after.config.settings,
        [
            Layer(blob.digest, blob.size, looked.size, len(looked.files), step, blob.digest in known)
            for blob, looked, step in zip(after.manifest.layers, after.looked, steps, strict=True)
        ],
        [] if before is None else list(setting_changes(_shown_settings(before), _shown_settings(after))),
        differing,
        bills,
        signatures,
    )


class _Desk:
    """Where layers lie that are looked at.

    Args:
        directory: for their files.
        told: hears of downloads.
    """

    def __init__(self, directory: Path, told: Transfer) -> None:
        self._directory = directory
        self._told = told
        self._looked: dict[tuple[str, str], LayerFiles] = {}
        self._budget = Budget(MAX_SIZE, MAX_FILES)

    async def fetch(self, registry: Registry, reference: ImageReference) -> _Image:
        """Bring an image here and look at its layers, each once."""
        manifest = await read_manifest(registry, reference)
        config = await read_config(registry, reference, manifest)
        if manifest.size > MAX_SIZE:
            raise error(
                Reason.IMAGE_TOO_LARGE, f"the layers of {reference} have {manifest.size} bytes, at most {MAX_SIZE}"
            )
        stored = []
        for blob, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            layer = StoredLayer(self._directory / blob.digest.partition(":")[2], blob, diff_id)
            with _whole(layer.path) as target:
                if target is not None:
                    await blobs.download(registry, blob, target, blobs.steps(self._told, blob))
            if (blob.digest, diff_id) not in self._looked:
                self._looked[blob.digest, diff_id] = await asyncio.to_thread(scan, layer, self._budget)
            stored.append(layer)
        looked = tuple(self._looked[each.blob.digest, each.diff_id] for each in stored)
        return _Image(reference, manifest, config, tuple(stored), looked)

    def changes(self, before: _Image | None, after: _Image) -> Iterator[Change]:
        """What differs, with the texts of small files."""
        now = apply(after.looked)
        if before is None:
            small = {number for number, each in enumerate(after.looked) if len(each.files) <= MAX_LISTED}
            then = {path: known for path, known in now.items() if known[1] not in small}
        else:
            then = apply(before.looked)
        found = list(changes(then, now))
        shown = {each.path for each in found if is_small(each.before if each.after is None else each.after)}
        old = {} if before is None else self._texts(before, [(path, then[path][1]) for path in shown if path in then])
        new = self._texts(after, [(path, now[path][1]) for path in shown if path in now])
        left = MAX_DIFF
        for each in found:
            change = with_text(each, old.get(each.path), new.get(each.path), left) if each.path in shown else each
            # After one that does not fit no other is compared: it would take time, and most would not fit either.
            left = 0 if change.omitted else left - sum(map(len, change.diff))
            yield change

    def _texts(self, image: _Image, places: list[tuple[str, int]]) -> dict[str, str]:
        found: dict[str, str] = {}
        for number in {each for _path, each in places}:
            wanted = {path for path, each in places if each == number}
            # Counted when it was looked at; what is read is the same file.
            found |= texts(image.stored[number], wanted, Budget(MAX_SIZE, MAX_FILES))
        return found


@contextmanager
def _whole(path: Path) -> Iterator[Any]:
    """A new file to be written; None when it is there."""
    if path.exists():
        yield None
        return
    with path.open("xb") as file:
        yield file


def _declaration(image: _Image) -> tuple[Declaration | None, str]:
    try:
        return declaration_of(image.config.settings, image.reference), ""
    except VantageError as problem:
        return None, problem.message


def _shown_settings(image: _Image) -> dict[str, Any]:
    """Settings with the labels as settings of their own, and the declaration as what it is."""
    settings = dict(image.config.settings)
    labels = settings.pop("Labels", None)
    for name, value in (labels if isinstance(labels, dict) else {}).items():
        parsed = json_object(value.encode()) if name == LABEL and isinstance(value, str) else None
        settings[f"label {name}"] = value if parsed is None else parsed
    return settings


def _steps(image: _Image) -> Iterator[str]:
    """What made each layer, as far as the config says."""
    history = image.config.document.get("history")
    made = [
        str(each.get("created_by", ""))
        for each in (history if isinstance(history, list) else [])
        if isinstance(each, dict) and not each.get("empty_layer")
    ]
    for number in range(len(image.manifest.layers)):
        yield made[number] if number < len(made) else ""
