"""Images in registries by the OCI distribution API: manifests and blobs, read and written.

Whatever is asked for by digest has that digest. Requests that fail in passing are tried again, a bounded number of
times. Blobs of any size: ``vantage.common.blobs``.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from vantage.common.errors import Reason, VantageError, error
from vantage.common.image_reference import ImageReference as ImageReference
from vantage.common.image_reference import is_digest as is_digest
from vantage.common.registry_auth import Credentials
from vantage.common.registry_auth import RegistryAccess as RegistryAccess
from vantage.common.registry_http import RepositoryHttp

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MAX_MANIFEST = 4 * 1024 * 1024
MAX_BLOB = 8 * 1024 * 1024


@dataclass(frozen=True)
class StoredReferrer:
    """A manifest that was stored with a ``subject``.

    Attributes:
        digest: its own.
        size: in bytes.
        listed: whether the registry lists it by itself; otherwise who stored it keeps the list.
    """

    digest: str
    size: int
    listed: bool


def digest_of(content: bytes) -> str:
    """``sha256:`` and the hexadecimal digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Registry(RepositoryHttp):
    """A connection to one repository; made by ``connect``."""

    async def manifest(self, reference: str) -> tuple[bytes, dict[str, Any]] | None:
        """A manifest by tag or digest: its bytes as stored and parsed; None when there is none.

        The bytes of a manifest by digest have that digest.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE.
            RefusedError: IMAGE_TAMPERED, the registry sent something else.
        """
        headers = {"accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
        content = await self.get(f"manifests/{reference}", MAX_MANIFEST, headers)
        if content is None:
            return None
        if is_digest(reference) and digest_of(content) != reference:
            raise tampered(f"manifest {reference}")
        document = json_object(content)
        if document is None:
            raise tampered(f"manifest {reference}")
        return content, document

    async def blob(self, digest: str, limit: int = MAX_BLOB) -> bytes | None:
        """A small blob, with the digest that was asked for; None when there is none.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE.
            RefusedError: IMAGE_TAMPERED, the registry sent something else.
        """
        if not is_digest(digest):
            raise tampered("blob without a digest")
        content = await self.get(f"blobs/{digest}", limit, {})
        if content is not None and digest_of(content) != digest:
            raise tampered(f"blob {digest}")
        return content

    async def put_blob(self, content: bytes) -> str:
        """Store a blob and return its digest."""
        digest = digest_of(content)

        async def attempt() -> None:
            async with self.exchange("POST", "blobs/uploads/") as begun:
                location = self.upload_location(begun, digest)
            async with self.exchange("PUT", location, content=content):
                pass

        await self.retried(attempt)
        return digest

    async def put_manifest(self, reference: str, document: dict[str, Any] | bytes) -> str:
        """Store a manifest under a tag or its digest and return its digest; bytes are stored as they are."""
        content = _dumped(document)
        await self._put_manifest(reference, content)
        return digest_of(content)

    async def referrers(self, digest: str) -> dict[str, Any] | None:
        """The index of what refers to an image, as the registry lists it; None when it knows no referrers API.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE.
            RefusedError: IMAGE_TAMPERED, the registry sent something else than an index, or too much.
        """
        content = await self.get(f"referrers/{digest}", MAX_MANIFEST, {"accept": INDEX_TYPES[0]})
        if content is None:
            return None
        if (document := json_object(content)) is None:
            raise tampered(f"list of what refers to {digest}")
        return document

    async def put_referrer(self, document: dict[str, Any] | bytes) -> StoredReferrer:
        """Store a manifest with a ``subject`` under its own digest; bytes are stored as they are."""
        content = _dumped(document)
        digest = digest_of(content)
        answer = await self._put_manifest(digest, content)
        return StoredReferrer(digest, len(content), "oci-subject" in answer)

    async def _put_manifest(self, reference: str, content: bytes) -> httpx.Headers:
        kind = str((json_object(content) or {}).get("mediaType", MANIFEST_TYPES[0]))

        async def attempt() -> httpx.Headers:
            async with self.exchange(
                "PUT", f"manifests/{reference}", content=content, headers={"content-type": kind}
            ) as response:
                return response.headers

        return await self.retried(attempt)

    async def get(self, path: str, limit: int, headers: dict[str, str]) -> bytes | None:
        """What lies at a path of the repository; None when nothing does.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE.
            RefusedError: IMAGE_TAMPERED, there are more bytes than ``limit``.
        """

        async def attempt() -> bytes | None:
            async with self.prompt(), self.exchange("GET", path, headers=headers, may_miss=True) as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    return None
                content = bytearray()
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > limit:
                        raise error(Reason.IMAGE_TAMPERED, f"{self.name} sent more than {limit} bytes for {path}")
                return bytes(content)

        return await self.retried(attempt)


@asynccontextmanager
async def connect(registry: str, path: str, access: RegistryAccess) -> AsyncIterator[Registry]:
    """Open a repository of a registry, or of the mirror or archive that stands in for it.

    Raises:
        UnavailableError: REGISTRY_UNAVAILABLE, the file with its authority, or the archive, cannot be read.
        RefusedError: IMAGE_TAMPERED, the archive is none.
    """
    if access.archive is not None:
        from vantage.common.archive_transport import ArchiveTransport  # here: it uses this module

        try:
            transport = await asyncio.to_thread(ArchiveTransport, access.archive, registry)
        except OSError as problem:
            raise error(
                Reason.REGISTRY_UNAVAILABLE,
                f"{access.archive}, which stands in for {registry}, cannot be read: {problem.strerror}",
                registry=registry,
            ) from problem
        async with httpx.AsyncClient(transport=transport) as client:
            credentials = Credentials(client, access, registry, path)
            yield Registry(client, f"http://{registry}/v2/{path}", credentials, registry, access.patience)
        return
    host, _, prefix = (access.mirror or registry).partition("/")
    where = f"{prefix}/{path}" if prefix else path
    plain = access.insecure or (is_loopback(host) and access.ca is None)
    try:
        verify = True if access.ca is None else ssl.create_default_context(cafile=str(access.ca))
    except (OSError, ssl.SSLError):
        raise error(
            Reason.REGISTRY_UNAVAILABLE,
            f"the registry {host} cannot be used: {access.ca} holds no certificate in PEM: correct it",
            registry=host,
        ) from None
    async with httpx.AsyncClient(
        timeout=httpx.Timeout(access.patience), verify=verify, follow_redirects=True, trust_env=False
    ) as client:
        credentials = Credentials(client, access, host, where)
        yield Registry(
            client, f"{'http' if plain else 'https'}://{host}/v2/{where}", credentials, host, access.patience
        )


def is_loopback(registry: str) -> bool:
    """Whether a registry is on this machine: Docker then speaks plain HTTP."""
    host = urlsplit(f"//{registry}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def json_object(content: bytes) -> dict[str, Any] | None:
    """A JSON object; None when it is something else."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def tampered(what: str) -> VantageError:
    """IMAGE_TAMPERED: a registry sent something else than what was asked for."""
    return error(Reason.IMAGE_TAMPERED, f"the registry sent a {what} that is not what was asked for: do not use it")


def _dumped(document: dict[str, Any] | bytes) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document, separators=(",", ":")).encode()
