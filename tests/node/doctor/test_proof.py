"""What was proved of the box: kept while nothing changes, demanded in production, shown by the command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from vantage.common.clock import SystemClock
from vantage.common.errors import ConfigurationError, Reason
from vantage.node import config as node_config
from vantage.node.config import NodeConfig
from vantage.node.doctor import proof
from vantage.node.doctor.findings import PROTECTIONS
from vantage.node.executor import sandbox
from vantage.testing.engine import BASE_IMAGE
from vantage.testing.program import vantage
from vantage.testing.scripted_server import ScriptedServer
from vantage.testing.station import Station

pytestmark = pytest.mark.docker

CLOCK = SystemClock()


@pytest.fixture
async def station(tmp_path: Path) -> AsyncIterator[Station]:
    async with ScriptedServer() as server:
        made = Station.create(tmp_path, server)
        made.settings |= {"executor": "docker", "allow_unsandboxed": False, "production": True}
        yield made


def configured(station: Station, **settings: Any) -> NodeConfig:
    station.settings |= settings
    return node_config.load(station.write())


async def test_what_was_proved_is_kept_until_something_changes(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, said = configured(station), list[str]()
    await proof.before_start(config, CLOCK, said.append)
    assert "all 28 protections held" in said[-1]
    assert (config.data_dir / proof.FILE).stat().st_mode & 0o777 == 0o600

    async def examined(*_args: Any) -> None:
        raise AssertionError("examined again")

    monkeypatch.setattr(proof, "examine", examined)
    await proof.before_start(config, CLOCK, said.append)
    assert said[0] == said[1]
    changed = configured(station, limits={"pids": 100})
    assert await proof.known(changed, BASE_IMAGE) is None
    with pytest.raises(AssertionError, match="examined again"):
        await proof.before_start(changed, CLOCK, said.append)
    (config.data_dir / proof.FILE).write_text("[]")
    assert await proof.known(config, BASE_IMAGE) is None


async def test_a_box_that_does_not_hold_stops_a_node_in_production_and_only_that(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = sandbox.container_settings

    def altered(*args: Any) -> dict[str, Any]:
        return {**genuine(*args), "read_only": False}

    monkeypatch.setattr("vantage.node.executor.docker.container_settings", altered)
    config, said = configured(station, production=True), list[str]()
    with pytest.raises(ConfigurationError, match=r"files\.root") as caught:
        await proof.before_start(config, CLOCK, said.append)
    assert caught.value.reason is Reason.SANDBOX_NOT_HELD
    await proof.before_start(configured(station, production=False), CLOCK, said.append)
    assert said == ["the sandbox does NOT hold: files.root: run 'vantage node doctor'"]


async def test_a_node_that_is_not_in_production_says_what_it_does_not_know(station: Station) -> None:
    said = list[str]()
    await proof.before_start(configured(station, production=False), CLOCK, said.append)
    assert said == ["the sandbox has not been proved on this engine: run 'vantage node doctor'"]


def test_the_command_shows_each_protection_and_the_node_obeys(station: Station) -> None:
    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, vantage("node", *command, "--config", station.write()))],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    done = run("doctor", "--output", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["held"] is True
    assert [each["check"] for each in told["findings"]] == list(PROTECTIONS)

    kept = station.directory / "data" / proof.FILE
    document = json.loads(kept.read_text())
    document["findings"][0]["held"] = False
    kept.write_text(json.dumps(document))
    done = run("start")
    assert done.returncode == 2
    assert "network.interfaces" in done.stderr

    done = run("doctor", "--image", "vantage/none:latest")
    assert done.returncode == 1
    assert "no image vantage/none:latest: name one" in done.stderr
    station.settings |= {"executor": "process", "allow_unsandboxed": True, "production": False}
    done = run("doctor")
    assert done.returncode == 1
    assert "has no sandbox" in done.stderr
    station.settings["production"] = True
    done = run("doctor")
    assert done.returncode == 2
    assert "needs a sandbox" in done.stderr
