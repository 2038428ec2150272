"""Whom a node believes about the nodes of other organizations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography.hazmat.primitives import serialization

from vantage.common import pki
from vantage.common.errors import Reason, VantageError
from vantage.common.revocation import sign_revocation_list
from vantage.common.trust import TrustStore
from vantage.node.connection import Connection
from vantage.node.tunnels.trust import PinnedTrust

HILDA = "organizations/hilda"
NOBODY = cast(Connection, SimpleNamespace())
"""A connection that must not be used."""


@dataclass
class Told:
    organization: str
    ca_certificates: list[str]
    revocation_list: bytes


def certified(authority: pki.CertificateAuthority, node: str) -> pki.CertifiedName:
    leaf = authority.issue(f"{HILDA}/nodes/{node}", pki.create_key().public_key())
    der = leaf.public_bytes(serialization.Encoding.DER)
    return pki.verify_chain([der], [authority.certificate], datetime.now(UTC))


async def test_files_come_before_the_store_and_nobody_is_asked(tmp_path: Path) -> None:
    stored = pki.CertificateAuthority.create(tmp_path / "stored", HILDA)
    given = pki.CertificateAuthority.create(tmp_path / "given", HILDA)
    store = TrustStore(tmp_path / "trust")
    trust = PinnedTrust(store, {}, None, NOBODY)
    with pytest.raises(VantageError) as caught:
        await trust.authorities(HILDA)
    assert caught.value.reason is Reason.CERTIFICATE_UNTRUSTED
    store.pin(HILDA, stored.certificate)
    assert list(await trust.authorities(HILDA)) == [stored.certificate]
    files = {HILDA: tmp_path / "given" / pki.CA_CERTIFICATE_FILE}
    assert list(await PinnedTrust(store, files, None, NOBODY).authorities(HILDA)) == [given.certificate]


async def test_a_revoked_node_is_no_peer(tmp_path: Path) -> None:
    authority = pki.CertificateAuthority.create(tmp_path / "ca", HILDA)
    store = TrustStore(tmp_path / "trust")
    store.pin(HILDA, authority.certificate)
    trust = PinnedTrust(store, {}, None, NOBODY)
    good, stolen = certified(authority, "good-1"), certified(authority, "stolen-1")
    now = datetime.now(UTC)
    revoked = sign_revocation_list(
        pki.read_key(tmp_path / "ca" / pki.CA_KEY_FILE),
        authority.certificate,
        {stolen.certificate.serial_number: now},
        1,
        now,
    )
    trust.check(stolen)
    store.offer([Told(HILDA, [pki.to_pem(authority.certificate)], revoked)])
    trust.check(good)
    with pytest.raises(VantageError) as caught:
        trust.check(stolen)
    assert caught.value.reason is Reason.CERTIFICATE_REVOKED
