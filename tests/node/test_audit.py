"""The audit log of a running node: what it holds, that it verifies, and that nothing leaves without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import audit, pki
from vantage.common.errors import Reason
from vantage.testing import inprocess
from vantage.testing.scripted_server import ScriptedSession
from vantage.testing.station import COLLABORATION, IMAGE, NODE, Station, assign, send


def lines(station: Station) -> list[dict[str, Any]]:
    return list(audit.records(station.directory / "data" / "audit.log"))


def key_of(station: Station) -> ec.EllipticCurvePublicKey:
    key = pki.load_certificates((station.directory / "node-cert.pem").read_bytes())[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


async def completed(session: ScriptedSession) -> Any:
    await session.receive("accepted")
    await session.receive("started")
    return (await session.receive("completed")).completed


async def test_it_says_who_asked_what_and_what_left(station: Station) -> None:
    async with station.running():
        session = await station.session()
        lease = send(session, assign("count", "{}", datasets={"table": "lung"}))
        result = (await completed(session)).result
        refused = send(session, assign("count", "{}", datasets={"table": "secret"}))
        await session.receive("refused")
    path = station.directory / "data" / "audit.log"
    assert path.stat().st_mode & 0o777 == 0o600
    started, decided, left, refusal, stopped, checkpoint = lines(station)
    assert (started["event"], started["node"]) == ("node.started", NODE)
    assert decided["event"] == "run.decided"
    assert decided["run"] == lease.run
    assert decided["who"] == "users/alice"
    assert decided["organization"] == "organizations/dora"
    assert decided["collaboration"] == COLLABORATION
    assert decided["image"] == IMAGE
    assert decided["function"] == "count"
    assert decided["datasets"] == ["lung"]
    assert decided["decision"] == "allowed"
    assert (left["event"], left["run"]) == ("run.result", lease.run)
    assert (left["digest"], left["bytes"]) == (result.digest, result.size_bytes)
    assert (refusal["run"], refusal["decision"], refusal["reason"]) == (refused.run, "refused", "DATASET_UNKNOWN")
    assert stopped["event"] == "node.stopped"
    assert checkpoint["event"] == "checkpoint"
    report = audit.verify(path, key_of(station))
    assert report.intact
    assert (report.checkpoints, report.unsigned) == (1, 0)


async def test_it_never_holds_content(station: Station) -> None:
    async with station.running():
        session = await station.session()
        send(session, assign("echo", '{"value": 31337}'))
        await completed(session)
        send(session, assign("crash", "{}"))
        assert (await completed(session)).failure.reason == Reason.ALGORITHM_CRASHED.name
    content = (station.directory / "data" / "audit.log").read_text()
    assert "31337" not in content
    assert "secret value" not in content
    ended = [each for each in lines(station) if each["event"] == "run.ended"]
    assert [each["reason"] for each in ended] == ["ALGORITHM_CRASHED"]


async def test_it_goes_on_after_a_restart_and_says_what_was_lost(station: Station) -> None:
    async with station.running():
        session = await station.session()
        lease = send(session, assign("hold", '{"gate": "a"}'))
        await inprocess.gates["a"].entered.wait()
        await session.receive("accepted")
        await session.receive("started")
    async with station.running():
        session = await station.session()
        await session.receive("completed")
    events = [each["event"] for each in lines(station)]
    assert events == [
        *("node.started", "run.decided", "node.stopped", "checkpoint"),
        *("node.started", "run.ended", "node.stopped", "checkpoint"),
    ]
    lost = lines(station)[5]
    assert (lost["run"], lost["reason"]) == (lease.run, Reason.NODE_LOST.name)
    assert audit.verify(station.directory / "data" / "audit.log", key_of(station)).checkpoints == 2


@pytest.mark.parametrize("damage", ["changed", "missing", "reordered"])
async def test_a_line_that_was_tampered_with_is_found(station: Station, damage: str, tmp_path: Path) -> None:
    async with station.running():
        session = await station.session()
        send(session, assign())
        await completed(session)
    path = station.directory / "data" / "audit.log"
    found = path.read_bytes().splitlines(keepends=True)
    if damage == "changed":
        found[1] = found[1].replace(b"users/alice", b"users/malic")
    elif damage == "missing":
        del found[1]
    else:
        found[1], found[2] = found[2], found[1]
    forged = tmp_path / "forged.log"
    forged.write_bytes(b"".join(found))
    assert not audit.verify(forged, key_of(station)).intact


async def test_nothing_leaves_when_it_cannot_be_written(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with station.running():
        session = await station.session()
        monkeypatch.setattr(audit.AuditLog, "append_all", full)
        send(session, assign())
        failure = (await completed(session)).failure
    assert failure.reason == Reason.SCRATCH_UNAVAILABLE.name
    assert "audit log" in failure.message
