"""An archive of images in place of a registry: answers the reading half of the OCI distribution API from a file.

For machines that reach no registry at all: whatever reads images by HTTP reads them from here with the same checks.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from vantage.common.blobs import CHUNK, Descriptor
from vantage.common.errors import VantageError
from vantage.common.image_archive import ArchiveReader
from vantage.common.oci import INDEX_TYPES, MANIFEST_TYPES

_ASKED = re.compile(r"/v2/(?P<path>.+)/(?P<kind>manifests|blobs)/(?P<what>[^/]+)")


class ArchiveTransport(httpx.AsyncBaseTransport):
    """Serves one registry from an archive.

    Args:
        path: of the archive.
        registry: ``host[:port]`` that it stands in for: only what was exported from there is found.

    Raises:
        RefusedError: IMAGE_TAMPERED, it is none.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, registry: str) -> None:
        self._archive = ArchiveReader(path)
        self._registry = registry

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        if request.method not in ("GET", "HEAD"):
            return _answer(405, b'{"errors": [{"code": "UNSUPPORTED"}]}')
        asked = _ASKED.fullmatch(request.url.path)
        if asked is None:  # also the referrers API: the index under the tag is the answer
            return _answer(404)
        repository = f"{self._registry}/{asked['path']}"
        try:
            if asked["kind"] == "blobs":
                return self._blob(asked["what"])
            content = self._manifest(repository, asked["what"])
        except VantageError:  # it is not in the archive, or not as it should be
            return _answer(404)
        return _answer(404) if content is None else _answer(200, content)

    async def aclose(self) -> None:
        """See httpx."""
        self._archive.close()

    def _manifest(self, repository: str, reference: str) -> bytes | None:
        here = [each for each in self._archive.entries if each.repository == repository]
        for each in here:
            if reference in (each.digest, each.tag):
                return self._archive.manifest(each.digest)[0]
        if not reference.startswith("sha256-"):
            return None
        subject = reference.replace("-", ":", 1)
        listed = [entry for each in here if (entry := self._referrer(each.digest, subject)) is not None]
        return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": listed}).encode()

    def _referrer(self, digest: str, subject: str) -> dict[str, Any] | None:
        content, document = self._archive.manifest(digest)
        known = document.get("subject")
        if not isinstance(known, dict) or known.get("digest") != subject:
            return None
        kind = str(document.get("mediaType", MANIFEST_TYPES[0]))
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def _blob(self, digest: str) -> httpx.Response:
        blob = Descriptor("", digest, self._archive.size(digest))
        return httpx.Response(200, stream=_Stream(self._archive, blob))


def _answer(status: int, content: bytes = b"") -> httpx.Response:
    return httpx.Response(status, stream=httpx.ByteStream(content))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, archive: ArchiveReader, blob: Descriptor) -> None:
        self._archive = archive
        self._blob = blob

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._blob.size
        with self._archive.blob(self._blob) as file:
            while left and (chunk := await asyncio.to_thread(file.read, min(left, CHUNK))):
                left -= len(chunk)
                yield chunk
