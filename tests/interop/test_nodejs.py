"""A client in Node.js that reads the protos when it starts: what it can do, any language can do."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import google.rpc.status_pb2
import pytest

from vantage.testing.processes import PASSWORD, RESEARCHER, Installation
from vantage.testing.station import COLLABORATION, IMAGE

pytestmark = [pytest.mark.nodejs, pytest.mark.asyncio(loop_scope="module")]

HERE = Path(__file__).parent
PROTOS = HERE.parent.parent / "protos"
COMMON = Path(google.rpc.status_pb2.__file__).parent.parent.parent
ORGANIZATIONS = ["organizations/clara", "organizations/hilda"]


def question(value: float) -> dict[str, Any]:
    inline = base64.b64encode(json.dumps({"value": value}).encode()).decode()
    arguments = {"media_type": "application/json", "sealing": "SEALING_NONE", "inline": inline}
    targets = [{"organization": each, "arguments": arguments} for each in ORGANIZATIONS]
    return {"collaboration": COLLABORATION, "image": IMAGE, "function": "echo", "targets": targets}


def answers(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What each organization answered."""
    runs = [each["run_finished"]["run"] for each in events if each["event"] == "run_finished"]
    return {run["organization"]: json.loads(base64.b64decode(run["result"]["inline"])) for run in runs}


async def run_client(network: Installation, **given: Any) -> dict[str, Any]:
    assert (HERE / "node_modules").is_dir(), "scripts/test tests/interop installs what the client needs"
    process = await asyncio.create_subprocess_exec(
        "node",
        str(HERE / "client.js"),
        str(PROTOS),
        str(COMMON),
        network.address,
        str(network.certificate),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate(json.dumps(given).encode())
    assert process.returncode == 0, errors.decode()
    said: dict[str, Any] = json.loads(out)
    return said


async def test_it_logs_in_asks_and_follows(network: Installation) -> None:
    said = await run_client(
        network, username=RESEARCHER, password=PASSWORD, questions=[question(value) for value in (1.5, 2.5, 3.5)]
    )
    assert said["user"] == said["principal"] == f"users/{RESEARCHER}"

    asked = said["asked"]
    assert asked[0]["event"] == "snapshot"
    assert asked[0]["snapshot"]["task"]["state"] == "TASK_STATE_ACTIVE"
    assert answers(asked) == {each: {"value": 1.5} for each in ORGANIZATIONS}
    assert asked[-1]["event"] == "task_finished"
    assert asked[-1]["task_finished"] == {"state": "TASK_STATE_SUCCEEDED", "succeeded_runs": 2}

    # After the snapshot, every kept event of the task again, in its order.
    assert said["watched"][0]["snapshot"]["task"]["state"] == "TASK_STATE_SUCCEEDED"
    assert said["watched"][1:] == [each for each in asked[1:] if each["sequence"] != "0"]

    by_request: dict[str, list[dict[str, Any]]] = {}
    for each in said["many"]:
        by_request.setdefault(each["request_id"], []).append(each["event"])
    assert [answers(events) for events in by_request.values()] == [
        {each: {"value": value} for each in ORGANIZATIONS} for value in (1.5, 2.5, 3.5)
    ]

    assert said["refused"]["code"] == "UNAUTHENTICATED"
    assert said["refused"]["info"]["reason"] == "CREDENTIALS_INVALID"
    assert said["refused"]["info"]["domain"] == "vantage"
