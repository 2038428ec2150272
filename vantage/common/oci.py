"""The part of the OCI distribution API that image signatures need: manifests and small blobs, read and written."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from vantage.common.errors import Reason, VantageError, error

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
_TIMEOUT = httpx.Timeout(15.0)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(r"(?:[a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")


@dataclass(frozen=True)
class ImageReference:
    """``REGISTRY/REPOSITORY@sha256:HEX``.

    Attributes:
        registry: ``host`` or ``host:port``.
        path: repository within the registry.
        digest: ``sha256:`` and 64 hexadecimal digits.
    """

    registry: str
    path: str
    digest: str

    @property
    def repository(self) -> str:
        """Registry and path."""
        return f"{self.registry}/{self.path}"

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Parse a reference by digest; a tag beside the digest is not allowed, since nobody would know which counts.

        Raises:
            InvalidArgumentError: IMAGE_NOT_BY_DIGEST.
        """
        name, _, digest = text.partition("@")
        registry, _, path = name.partition("/")
        if (
            _DIGEST.fullmatch(digest) is None
            or _HOST.fullmatch(registry) is None
            or ("." not in registry and ":" not in registry and registry != "localhost")
            or _REPOSITORY.fullmatch(path) is None
        ):
            raise error(
                Reason.IMAGE_NOT_BY_DIGEST,
                f"the image must be named by digest, REGISTRY/REPOSITORY@sha256:HEX, got {text[:200]!r}",
            )
        return cls(registry, path, digest)


def is_digest(text: object) -> bool:
    """Whether it is ``sha256:`` and 64 hexadecimal digits, so that what it names can be checked against it."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True)
class RegistryAccess:
    """How a registry is reached.

    Attributes:
        username: for registries that ask for one.
        password: its password.
        insecure: plain HTTP; without it only for registries on loopback, as Docker does.
        ca: file with the authority of the registry's certificate.
    """

    username: str | None = None
    password: str | None = None
    insecure: bool = False
    ca: Path | None = None


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


class Registry:
    """A connection to one repository; made by ``connect``."""

    def __init__(self, client: httpx.AsyncClient, base: str, access: RegistryAccess, name: str) -> None:
        self._client = client
        self._base = base
        self._access = access
        self._name = name
        self._token = ""

    async def manifest(self, reference: str) -> tuple[bytes, dict[str, Any]] | None:
        """A manifest by tag or digest: its bytes as stored and parsed; None when there is none.

        The bytes of a manifest by digest have that digest.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE.
            RefusedError: IMAGE_TAMPERED, the registry sent something else.
        """
        headers = {"accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
        content = await self._get(f"manifests/{reference}", MAX_MANIFEST, headers)
        if content is None:
            return None
        if _DIGEST.fullmatch(reference) and digest_of(content) != reference:
            raise _tampered(f"manifest {reference}")
        document = _object(content)
        if document is None:
            raise _tampered(f"manifest {reference}")
        return content, document

    async def blob(self, digest: str, limit: int = MAX_BLOB) -> bytes | None:
        """A small blob, with the digest that was asked for; None when there is none.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE.
            RefusedError: IMAGE_TAMPERED, the registry sent something else.
        """
        if _DIGEST.fullmatch(digest) is None:
            raise _tampered("blob without a digest")
        content = await self._get(f"blobs/{digest}", limit, {})
        if content is not None and digest_of(content) != digest:
            raise _tampered(f"blob {digest}")
        return content

    async def put_blob(self, content: bytes) -> str:
        """Store a blob and return its digest."""
        digest = digest_of(content)
        begun = await self._request("POST", f"{self._base}/blobs/uploads/")
        location = httpx.URL(self._base).join(begun.headers["location"])
        await self._request("PUT", str(location.copy_merge_params({"digest": digest})), content=content)
        return digest

    async def put_manifest(self, tag: str, document: dict[str, Any]) -> str:
        """Store a manifest under a tag and return its digest."""
        content = json.dumps(document, separators=(",", ":")).encode()
        await self._put_manifest(tag, document["mediaType"], content)
        return digest_of(content)

    async def referrers(self, digest: str) -> dict[str, Any] | None:
        """The index of what refers to an image, as the registry lists it; None when it knows no referrers API.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE.
            RefusedError: IMAGE_TAMPERED, the registry sent something else than an index, or too much.
        """
        content = await self._get(f"referrers/{digest}", MAX_MANIFEST, {"accept": INDEX_TYPES[0]})
        if content is None:
            return None
        if (document := _object(content)) is None:
            raise _tampered(f"list of what refers to {digest}")
        return document

    async def put_referrer(self, document: dict[str, Any]) -> StoredReferrer:
        """Store a manifest with a ``subject`` under its own digest."""
        content = json.dumps(document, separators=(",", ":")).encode()
        digest = digest_of(content)
        response = await self._put_manifest(digest, document["mediaType"], content)
        return StoredReferrer(digest, len(content), "oci-subject" in response.headers)

    async def _put_manifest(self, reference: str, kind: str, content: bytes) -> httpx.Response:
        headers = {"content-type": kind}
        return await self._request("PUT", f"{self._base}/manifests/{reference}", content=content, headers=headers)

    async def _get(self, path: str, limit: int, headers: dict[str, str]) -> bytes | None:
        for attempt in (1, 2):
            try:
                async with self._client.stream(
                    "GET", f"{self._base}/{path}", headers={**headers, **self._authorization()}
                ) as response:
                    if response.status_code == httpx.codes.UNAUTHORIZED and attempt == 1:
                        await self._authorize(response)
                        continue
                    if response.status_code == httpx.codes.NOT_FOUND:
                        return None
                    self._check(response)
                    content = b""
                    async for chunk in response.aiter_bytes():
                        content += chunk
                        if len(content) > limit:
                            raise error(Reason.IMAGE_TAMPERED, f"{self._name} sent more than {limit} bytes for {path}")
                    return content
            except (httpx.HTTPError, httpx.InvalidURL) as problem:
                raise self._unavailable(type(problem).__name__) from problem
        raise self._unavailable("it does not accept the credentials")

    async def _request(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        headers = arguments.pop("headers", {})
        try:
            response = await self._client.request(
                method, url, headers={**headers, **self._authorization()}, **arguments
            )
            if response.status_code == httpx.codes.UNAUTHORIZED:
                await self._authorize(response)
                response = await self._client.request(
                    method, url, headers={**headers, **self._authorization()}, **arguments
                )
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            raise self._unavailable(type(problem).__name__) from problem
        self._check(response)
        return response

    def _authorization(self) -> dict[str, str]:
        return {"authorization": self._token} if self._token else {}

    async def _authorize(self, response: httpx.Response) -> None:
        """Answer the registry's challenge: basic credentials, or a token that they are exchanged for."""
        scheme, _, rest = response.headers.get("www-authenticate", "").partition(" ")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        access = self._access
        basic = httpx.BasicAuth(access.username, access.password or "") if access.username is not None else None
        if scheme.lower() == "basic" and basic is not None:
            self._token = next(basic.auth_flow(httpx.Request("GET", self._base))).headers["authorization"]
        elif scheme.lower() == "bearer" and "realm" in fields:
            query = {key: fields[key] for key in ("service", "scope") if key in fields}
            answer = await self._client.get(fields["realm"], params=query, auth=basic)
            self._check(answer)
            document = _object(answer.content)
            if document is None:
                raise self._unavailable("its token service answers something else than a token")
            self._token = f"Bearer {document.get('token') or document.get('access_token', '')}"
        else:
            raise self._unavailable("it asks for credentials: add them under 'registries'")

    def _check(self, response: httpx.Response) -> None:
        if response.status_code >= httpx.codes.BAD_REQUEST:
            raise self._unavailable(f"it answered {response.status_code}")

    def _unavailable(self, why: str) -> VantageError:
        return error(
            Reason.REGISTRY_UNAVAILABLE, f"the registry {self._name} cannot be used: {why}", registry=self._name
        )


@asynccontextmanager
async def connect(registry: str, path: str, access: RegistryAccess) -> AsyncIterator[Registry]:
    """Open a repository of a registry."""
    scheme = "http" if access.insecure or is_loopback(registry) else "https"
    verify: Any = str(access.ca) if access.ca is not None else True
    async with httpx.AsyncClient(timeout=_TIMEOUT, verify=verify, follow_redirects=True, trust_env=False) as client:
        yield Registry(client, f"{scheme}://{registry}/v2/{path}", access, registry)


def is_loopback(registry: str) -> bool:
    """Whether a registry is on this machine: Docker then speaks plain HTTP."""
    host = urlsplit(f"//{registry}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _object(content: bytes) -> dict[str, Any] | None:
    """A JSON object; None when it is something else."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _tampered(what: str) -> VantageError:
    return error(Reason.IMAGE_TAMPERED, f"the registry sent a {what} that is not what was asked for: do not use it")
