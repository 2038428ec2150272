"""A signed and sealed task of a researcher who uses Node.js, at nodes that run no other."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import google.rpc.status_pb2
import pytest
from cryptography.hazmat.primitives import serialization

from vantage.common import pki, sealing
from vantage.testing.processes import HOME, PASSWORD, RESEARCHER, Installation
from vantage.testing.station import COLLABORATION, IMAGE

pytestmark = pytest.mark.nodejs

HERE = Path(__file__).parent
ORGANIZATIONS = ("clara", "hilda")
PEM = serialization.Encoding.PEM


async def test_a_client_in_node_js_signs_seals_verifies_and_opens(tmp_path: Path) -> None:
    settings = {"policy": {"allow_unsigned": False}, "trust": {"first_use": True}}
    async with Installation.running(tmp_path, ORGANIZATIONS, settings=settings) as network:
        key, secret = pki.create_key(), sealing.create_identity()
        requester = f"{HOME}/users/{RESEARCHER}"
        certificate = network.authority.issue(requester, key.public_key())
        given = {
            "username": RESEARCHER,
            "password": PASSWORD,
            "requester": requester,
            "key": key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode(),
            "chain": [pki.to_pem(certificate)],
            "secret": secret,
            "recipient": sealing.recipient_of(secret),
            "authorities": [(tmp_path / name / "ca" / "ca-cert.pem").read_text() for name in ORGANIZATIONS],
            "collaboration": COLLABORATION,
            "image": IMAGE,
            "function": "echo",
            "organizations": [f"organizations/{name}" for name in ORGANIZATIONS],
            "arguments": {"value": 42.5},
        }
        process = await asyncio.create_subprocess_exec(
            "node",
            str(HERE / "sealed_client.mjs"),
            str(HERE.parent.parent / "protos"),
            str(Path(google.rpc.status_pb2.__file__).parent.parent.parent),
            network.address,
            str(network.certificate),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await asyncio.wait_for(process.communicate(json.dumps(given).encode()), 60)
    assert process.returncode == 0, errors.decode()
    said = json.loads(out)
    assert said["answers"] == {f"organizations/{name}": {"value": 42.5} for name in ORGANIZATIONS}
    assert said["tampered"] == "RESULT_UNVERIFIED"
