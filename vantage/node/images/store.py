"""Evidence that the node has seen, on disk, so that images which are here run while their registry is down.

What is read here is examined like what comes from a registry: a file that somebody changed proves nothing that the same
bytes from a registry would not prove. One file for each image by digest, written when the image was allowed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from vantage.common.errors import VantageError
from vantage.common.files import replace_private
from vantage.common.image_signing import MAX_TOTAL
from vantage.common.image_statements import ImageStatement, Layout, parse
from vantage.common.oci import MAX_BLOB, MAX_MANIFEST, ImageReference
from vantage.node.images.evidence import Evidence

log = logging.getLogger(__name__)

MAX_FILES = 1_000
"""The oldest go first."""
_MAX_BYTES = 2 * (MAX_TOTAL + MAX_MANIFEST + MAX_BLOB)
"""Of one file: base64 and JSON around what a registry may have sent."""
_SCHEMA = 1


class EvidenceStore:
    """Evidence by image.

    Args:
        directory: made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, reference: ImageReference) -> Evidence | None:
        """What is known about an image; None when there is nothing that can be read."""
        path = self._path(reference)
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError("too large")
            document: Any = json.loads(path.read_bytes())
            if document["schema"] != _SCHEMA or document["image"] != str(reference):
                raise ValueError("about something else")
            statements = [
                one
                for each in document["statements"]
                for one in parse(Layout(each["layout"]), _bytes(each["content"]), str(each["signature"]))
                if one.signature == each["signature"]
            ]
            return Evidence(reference, _bytes(document["manifest"]), _bytes(document["config"]), tuple(statements))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, VantageError) as problem:
            # Nothing is lost: the registry is asked as if there were no file.
            log.warning("evidence is not readable", extra={"path": str(path), "problem": type(problem).__name__})
            return None

    def save(self, evidence: Evidence) -> None:
        """Keep evidence in place of what was known of the image; a disk that is full costs only that."""
        document = {
            "schema": _SCHEMA,
            "image": str(evidence.reference),
            "manifest": _text(evidence.manifest),
            "config": _text(evidence.config),
            "statements": [_dump(each) for each in evidence.statements],
        }
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_private(self._path(evidence.reference), json.dumps(document))
            self._prune()
        except OSError as problem:
            log.warning("evidence cannot be kept", extra={"image": str(evidence.reference), "errno": problem.errno})

    def _prune(self) -> None:
        files = sorted(self._directory.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[MAX_FILES:]:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _path(self, reference: ImageReference) -> Path:
        # Of the whole name: what was signed for one repository is not known of another.
        return self._directory / f"{hashlib.sha256(str(reference).encode()).hexdigest()}.json"


def _dump(statement: ImageStatement) -> dict[str, str]:
    return {
        "layout": statement.layout.value,
        "content": _text(statement.content),
        "signature": statement.signature,
    }


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as problem:
        raise ValueError(str(problem)) from None
