"""The node's keys for sealed payloads: made here, never leaving, told to others as a signed list."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc

from vantage.api.identity.v1 import key_service_pb2 as pb
from vantage.api.identity.v1 import key_service_pb2_grpc
from vantage.common import sealing
from vantage.common.attestation import KEYS_LIFETIME, sign_keys
from vantage.common.clock import Clock
from vantage.common.errors import Reason, UnavailableError, VantageError, error
from vantage.common.files import replace_private
from vantage.common.rpc import error_from_rpc
from vantage.common.statements import KeyBundle
from vantage.node.connection import Connection
from vantage.node.identity import Identity

SECRETS_FILE = "seal-keys.txt"
"""An identity file of age, the newest key first: the older ones open what was sealed before a rotation."""
PUBLISHED_FILE = "seal-keys.json"
MAX_KEYS = 8
_RENEW_BEFORE = timedelta(days=60)
_TIMEOUT = 20.0


class SealKeys:
    """Secret keys in a directory of the node.

    Args:
        directory: the node's data directory.
        clock: the time.

    Raises:
        VantageError: a file is not usable.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._secrets = directory / SECRETS_FILE
        self._published = directory / PUBLISHED_FILE
        self._clock = clock
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._secrets.exists():
            self._write([sealing.create_identity()])
        self.identities: Sequence[str] = self._read()
        self._told = b""

    @property
    def recipients(self) -> tuple[str, ...]:
        """Public halves, the newest first."""
        return tuple(sealing.recipient_of(each) for each in self.identities)

    def rotate(self) -> None:
        """Make a new key; the older ones go on to open what was sealed to them."""
        self._write([sealing.create_identity(), *self.identities][:MAX_KEYS])
        self.identities = self._read()

    def envelope(self, identity: Identity, *, above: int = 0) -> bytes:
        """The signed list of keys: the same bytes until keys or certificate change, or it has grown old.

        Args:
            identity: who signs.
            above: the version must be higher.
        """
        now = self._clock.now()
        kept = self._last()
        leaf = identity.chain[0].serial_number
        newest = self.recipients[:1]
        if (
            kept is not None
            and kept["version"] > above
            and kept["serial"] == leaf
            and tuple(kept["recipients"]) == newest
            and kept["expires"] > (now + _RENEW_BEFORE).timestamp()
        ):
            return base64.b64decode(kept["envelope"])
        # Seconds, so that the number grows even when this directory was lost.
        version = max(int(now.timestamp()), above + 1, 1 + (kept["version"] if kept is not None else 0))
        bundle = KeyBundle(
            holder=identity.name,
            version=version,
            recipients=newest,
            created=now,
            expires=min(now + KEYS_LIFETIME, identity.chain[0].not_valid_after_utc),
        )
        envelope = sign_keys(bundle, identity.key, identity.chain)
        document = {
            "version": version,
            "serial": leaf,
            "recipients": newest,
            "expires": bundle.expires.timestamp(),
            "envelope": base64.b64encode(envelope).decode(),
        }
        replace_private(self._published, json.dumps(document))
        return envelope

    async def publish(self, connection: Connection) -> None:
        """Tell the server the list, unless this process has done so already.

        Raises:
            FatalError: the server does not admit the node.
            VantageError: the server does not take it, or cannot be asked now.
        """
        envelope = self.envelope(connection.identity)
        if envelope == self._told:
            return
        try:
            await _publish(connection, envelope)
        except UnavailableError:
            raise
        except VantageError as problem:
            if problem.reason is not Reason.KEYS_STALE:
                self._told = envelope  # asking again would be answered in the same way
                raise
            # This directory is younger than what was published: start above it.
            try:
                envelope = self.envelope(connection.identity, above=int(problem.metadata.get("version") or 0))
            except ValueError:
                raise problem from None  # no number that a list could have
            await _publish(connection, envelope)
        self._told = envelope

    def _read(self) -> list[str]:
        try:
            return sealing.read_identities(self._secrets.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as problem:
            raise error(Reason.CONFIGURATION_INVALID, f"cannot read the keys {self._secrets}: {problem}") from problem

    def _write(self, identities: Sequence[str]) -> None:
        lines = ["# vantage node: keys for sealed payloads, the newest first", *identities, ""]
        replace_private(self._secrets, "\n".join(lines))

    def _last(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._published.read_text("utf-8"))
            return {
                "version": int(found["version"]),
                "serial": int(found["serial"]),
                "recipients": list(found["recipients"]),
                "expires": float(found["expires"]),
                "envelope": str(found["envelope"]),
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None  # it is made anew, with a higher version


async def _publish(connection: Connection, envelope: bytes) -> None:
    stub = key_service_pb2_grpc.KeyServiceStub(await connection.channel())
    try:
        await stub.PublishKeys(
            pb.PublishKeysRequest(envelope=envelope), metadata=await connection.metadata(), timeout=_TIMEOUT
        )
    except grpc.aio.AioRpcError as problem:
        raise error_from_rpc(problem) from problem
