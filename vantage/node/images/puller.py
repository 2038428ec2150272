"""Brings verified images to the engine, and makes sure that what is there is what was verified."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from weakref import WeakValueDictionary

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from vantage.common.errors import Reason, VantageError, error
from vantage.node.images.verifier import Access, VerifiedImage
from vantage.node.sources import Tell

log = logging.getLogger(__name__)

_PULL_TIMEOUT = 3600
_API_VERSION = "1.41"


class ImagePuller:
    """Pulls images through an engine.

    Args:
        host: the engine's socket.
        access: how each registry is reached.
    """

    def __init__(self, host: str, access: Access) -> None:
        self._host = host
        self._access = access
        self._pulling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def fetch(self, image: VerifiedImage, tell: Tell) -> None:
        """Pull an image unless the engine has it: an id is a digest, so what has it is the image.

        Raises:
            RefusedError: IMAGE_TAMPERED, IMAGE_NOT_FOUND.
            UnavailableError: EXECUTOR_UNAVAILABLE, REGISTRY_UNAVAILABLE.
        """
        lock = self._pulling.setdefault(image.image_id, asyncio.Lock())
        async with lock:
            if await asyncio.to_thread(self._has, image):
                return
            tell(0.0, "pulling image")
            log.info("pulling image", extra={"image": str(image.reference)})
            await asyncio.to_thread(self._pull, image)
            # (8) The engine may have kept an older image of that name: only the id says what is there.
            if not await asyncio.to_thread(self._has, image):
                raise error(
                    Reason.IMAGE_TAMPERED,
                    f"after the pull the engine does not have {image.reference} as it was signed: do not use it",
                    image=str(image.reference),
                )

    def _client(self) -> docker.DockerClient:
        try:
            return docker.DockerClient(base_url=self._host, version=_API_VERSION, timeout=_PULL_TIMEOUT)
        except DockerException as problem:
            raise _engine(self._host, problem) from problem

    def _has(self, image: VerifiedImage) -> bool:
        client = self._client()
        try:
            return bool(client.images.get(image.image_id).id == image.image_id)
        except ImageNotFound:
            return False
        except (DockerException, requests.RequestException) as problem:
            raise _engine(self._host, problem) from problem
        finally:
            client.close()

    def _pull(self, image: VerifiedImage) -> None:
        reference = image.reference
        access = self._access(reference.registry)
        credentials = (
            {"username": access.username, "password": access.password or ""} if access.username is not None else None
        )
        client = self._client()
        try:
            # The high-level pull swallows errors in the stream and returns whatever image of that name is there.
            stream: Any = client.api.pull(
                reference.repository, tag=reference.digest, stream=True, decode=True, auth_config=credentials
            )
            # Read to its end, also after an error: that lets go of the connection.
            problems = [str(item["error"]) for item in stream if "error" in item]
        except APIError as problem:
            raise error(
                Reason.REGISTRY_UNAVAILABLE,
                f"the image {reference} cannot be pulled: {str(problem.explanation)[:300]}",
                image=str(reference),
            ) from problem
        except (DockerException, requests.RequestException) as problem:
            raise _engine(self._host, problem) from problem
        finally:
            client.close()
        if problems:
            tampered = any(word in problems[0] for word in ("verif", "digest"))
            raise error(
                Reason.IMAGE_TAMPERED if tampered else Reason.REGISTRY_UNAVAILABLE,
                f"the image {reference} cannot be pulled: {problems[0][:300]}",
                image=str(reference),
            )


def _engine(host: str, problem: Exception) -> VantageError:
    return error(
        Reason.EXECUTOR_UNAVAILABLE,
        f"the container engine at {host} does not answer: start it, or correct docker.host ({type(problem).__name__})",
        host=host,
    )
