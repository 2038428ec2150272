"""Entry point in the container: asks the node what to do, does it, hands over the answer."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from vantage.algorithm.asking import Asker, problem_text, short_name
from vantage.algorithm.context import Context, Subtask, SubtaskResult
from vantage.algorithm.database import Database
from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.functions import find
from vantage.algorithm.invoke import Answer, Source, failure_of, invoke
from vantage.algorithm.patience import CHANNEL_OPTIONS, Patience, lost
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.algorithm.v1 import algorithm_service_pb2_grpc

if TYPE_CHECKING:
    from vantage.algorithm.peers import Peers
    from vantage.algorithm.ports import Ports

_MAX_MESSAGE = 16 * 1024 * 1024
OPTIONS = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.enable_http_proxy", 0))
"""Of a channel to the node."""


def main(environment: Mapping[str, str]) -> int:
    """Run what the node asks for.

    Args:
        environment: VANTAGE_SOCKET and VANTAGE_TOKEN from the node, VANTAGE_MODULE from the image.

    Returns:
        Exit status: 0 when the node has the result, 1 for a failure, 2 when this is not a container of a run.
    """
    # As process 1 of a container there is no default action: without this SIGTERM would be ignored.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    missing = [name for name in ("VANTAGE_SOCKET", "VANTAGE_TOKEN", "VANTAGE_MODULE") if not environment.get(name)]
    if missing:
        print(f"{', '.join(missing)} not set: this runs in a node; see --help for use by hand", file=sys.stderr)
        return 2
    with grpc.insecure_channel(f"unix:{environment['VANTAGE_SOCKET']}", options=OPTIONS) as channel:
        door = GrpcDoor(channel, environment["VANTAGE_TOKEN"], f"unix:{environment['VANTAGE_SOCKET']}")
        try:
            with contextlib.closing(door):
                return _run(door, environment["VANTAGE_MODULE"])
        except grpc.RpcError as problem:
            # Of the calls to the node itself: it cannot be told by another call.
            print(f"the node did not take it: {problem_text(problem)}", file=sys.stderr)
            return 1


def _run(door: GrpcDoor, module: str) -> int:
    asked = door.context()
    try:
        arguments = json.loads(door.arguments() or b"{}")
        # Before the module is imported: libraries look when they are.
        os.environ.update(door.proxies(asked.egress))
        function = find(importlib.import_module(module), asked.function)
        organizations = [short_name(each) for each in asked.organizations]
        data = {each.parameter: door.source(each) for each in asked.datasets}
        answer = invoke(function, arguments, data, Context(door, short_name(asked.organization), organizations))
    except grpc.RpcError:
        raise
    except Exception as problem:  # noqa: BLE001  # an author's function may raise anything: it must be reported
        failure = failure_of(problem, asked.function)
        print(failure, file=sys.stderr)
        door.fail(failure)
        return 1
    door.submit(answer)
    return 0


class GrpcDoor:
    """The node's local API; keeps ``Door``. A node that is restarted is waited for: see ``Patience``.

    Args:
        channel: to the socket of the run.
        token: of the run.
        target: the socket again, for channels of other kinds.
    """

    def __init__(self, channel: grpc.Channel, token: str, target: str) -> None:
        self._token = token
        self._target = target
        # The generated types know the asynchronous stub only; this is the synchronous one.
        self._stub: Any = algorithm_service_pb2_grpc.AlgorithmServiceStub(channel)  # type: ignore[arg-type]
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._patience = Patience()
        self._ports: Ports | None = None

    def close(self) -> None:
        """End the ports, if there are any."""
        if self._ports is not None:
            self._ports.close()

    def context(self) -> pb.GetContextResponse:
        """What the node asks for."""
        answer: pb.GetContextResponse = self._persist(self._stub.GetContext, lambda: pb.GetContextRequest())
        if answer.HasField("deadline"):
            self._patience.until(answer.deadline.ToDatetime(UTC), datetime.now(UTC))
        return answer

    def arguments(self) -> bytes:
        """The arguments, whole."""

        def read(seconds: float) -> bytes:
            request = pb.ReadArgumentsRequest()
            stream = self._stub.ReadArguments(request, metadata=self._metadata, wait_for_ready=True, timeout=seconds)
            return b"".join(each.chunk for each in stream)

        return self._patience.repeat(read)

    def progress(self, fraction: float, message: str) -> None:
        """See ``Door``. While the node is away it is not told: it will hear of what comes later."""
        request = pb.ReportProgressRequest(fraction=fraction, message=message[:200])
        try:
            self._stub.ReportProgress(request, metadata=self._metadata)
        except grpc.RpcError as problem:
            if not lost(problem):
                raise

    def submit(self, answer: Answer) -> None:
        """Hand over the result; it counts when this returns."""
        self._persist(self._stub.SubmitResult, lambda: _parts(answer))

    def fail(self, failure: AlgorithmError) -> None:
        """Report that there is none."""
        request = pb.SubmitFailureRequest(reason=failure.reason.name, message=failure.message[:4000])
        self._persist(self._stub.SubmitFailure, lambda: request)

    def _persist(self, method: Any, request: Callable[[], Any]) -> Any:
        return self._patience.repeat(
            lambda seconds: method(request(), metadata=self._metadata, wait_for_ready=True, timeout=seconds)
        )

    def peers(self) -> Peers:
        """See ``Door``."""
        from vantage.algorithm.peers import Peers  # here, since most algorithms have none

        return Peers(self._target, self._token)

    def source(self, given: pb.ContextDataset) -> Source:
        """A dataset as functions get it."""
        path = Path(given.path)
        if not given.HasField("connection"):
            return Source(path, given.format, given.sheet)
        leads = given.connection

        def opening() -> tuple[str, int]:
            target = pb.DialTarget(dataset=pb.DatasetTarget(parameter=given.parameter))
            return self._open(target, f"the dataset {given.dataset}")

        cdm = (leads.cdm_schema, leads.cdm_version)
        return Source(path, given.format, database=Database.read(path, opening, leads.dialect, leads.database, cdm))

    def forward(self, host: str, port: int) -> tuple[str, int]:
        """See ``Door``."""
        return self._open(pb.DialTarget(host=pb.HostTarget(host=host, port=port)), f"{host}:{port}")

    def proxies(self, hosts: Sequence[str]) -> dict[str, str]:
        """Environment of a proxy that leads to these hosts; empty when there are none."""
        if not hosts:
            return {}
        url = f"http://127.0.0.1:{self._own_ports().proxy()}"
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        return dict.fromkeys(names, url) | dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1")

    def _open(self, target: pb.DialTarget, where: str) -> tuple[str, int]:
        return "127.0.0.1", self._own_ports().open(target, where)

    def _own_ports(self) -> Ports:
        from vantage.algorithm.ports import Ports  # here, since most algorithms have none

        if self._ports is None:
            self._ports = Ports(self._target, self._token)
        return self._ports

    def subtask(self, subtask: Subtask) -> list[SubtaskResult]:
        """See ``Door``."""
        return Asker(self._stub, self._metadata, self._patience).ask(subtask)


def _parts(answer: Answer) -> Iterator[pb.SubmitResultRequest]:
    yield pb.SubmitResultRequest(header=pb.ResultHeader(media_type=answer.media_type))
    for block in answer.blocks():
        yield pb.SubmitResultRequest(chunk=block)
