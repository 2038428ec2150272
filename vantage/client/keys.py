"""The user's keys at the server and on this machine."""

from __future__ import annotations

import asyncio
import importlib
import os
from pathlib import Path
from typing import Any

from vantage.api.identity.v1 import key_service_pb2 as pb
from vantage.client.caller import Caller
from vantage.client.codec import Identity
from vantage.client.keyring import KeyFiles, Keyring, Passphrase
from vantage.common.errors import NotFoundError, Reason, VantageError, error
from vantage.common.trust import TrustStore

PASSPHRASE_VARIABLE = "VANTAGE_KEY_PASSPHRASE"  # noqa: S105  # its name
KEYRING_SERVICE = "vantage"


class AsyncKeys:
    """Lists of keys that payloads are sealed to."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def publish(self, files: KeyFiles, keyring: Keyring) -> int:
        """Sign the list of the user's keys anew, tell it to the server, and return its version.

        Raises:
            RefusedError: KEYS_INVALID, the server does not believe it.
            PermissionDeniedError: CERTIFICATE_UNTRUSTED, the organization's authority is not known to the server.
        """
        envelope = await asyncio.to_thread(files.sign_list, keyring)
        try:
            return await self._publish(envelope)
        except VantageError as problem:
            if problem.reason is not Reason.KEYS_STALE:
                raise
            # This directory is younger than what was published: start above it.
            above = int(problem.metadata.get("version") or 0)
        return await self._publish(await asyncio.to_thread(files.sign_list, keyring, above=above))

    async def published_version(self, holder: str) -> int:
        """Version of the list of a holder that the server passes on; 0 for none that you may see."""
        try:
            answer = await self._caller.unary(
                lambda stubs: stubs.keys.GetKeys, pb.GetKeysRequest(holder=holder), repeatable=True
            )
        except NotFoundError:
            return 0
        return answer.keys.version

    async def _publish(self, envelope: bytes) -> int:
        request = pb.PublishKeysRequest(envelope=envelope)
        answer = await self._caller.unary(lambda stubs: stubs.keys.PublishKeys, request, repeatable=True)
        return answer.keys.version


def load_identity(directory: Path, passphrase: Passphrase | None = None) -> Identity | None:
    """The keys in a directory with the authorities that are trusted beside them; None when no keys were made there.

    Args:
        directory: see ``keyring``.
        passphrase: see ``Passphrase``; ``stored_passphrase`` when None.

    Raises:
        VantageError: the keys are not ready for use; the message says which command helps.
    """
    files = KeyFiles(directory)
    if not files.exists:
        return None
    keyring = files.open(passphrase or (lambda: stored_passphrase(files.name())))
    return Identity(keyring, TrustStore(directory, own=keyring.chain), files.seen())


def stored_passphrase(name: str) -> bytes | None:
    """The passphrase of a user's key: from the environment, or from the system's keyring when it is installed."""
    if given := os.environ.get(PASSPHRASE_VARIABLE):
        return given.encode()
    try:
        system: Any = importlib.import_module("keyring")
    except ModuleNotFoundError:
        return None
    try:
        found = system.get_password(KEYRING_SERVICE, name)
    except system.errors.KeyringError as problem:
        raise error(
            Reason.KEY_INVALID,
            f"the system's keyring does not give the passphrase ({problem}): set {PASSPHRASE_VARIABLE}",
        ) from problem
    return None if found is None else found.encode()
