"""Entry point in the container: asks the node what to do, does it, hands over the answer."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from vantage.algorithm.context import Context, Failure, Subtask, SubtaskResult, taken
from vantage.algorithm.database import Database
from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.functions import find
from vantage.algorithm.invoke import Answer, Source, failure_of, invoke
from vantage.algorithm.patience import CHANNEL_OPTIONS, Patience, lost, refusal
from vantage.algorithm.sent_files import blocks_of, sent_files
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.algorithm.v1 import algorithm_service_pb2_grpc
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common import argument_files
from vantage.common.data_questions import KEY, split_references
from vantage.common.errors import Reason
from vantage.common.media_types import JSON

if TYPE_CHECKING:
    from vantage.algorithm.peers import Peers
    from vantage.algorithm.ports import Ports

_INLINE_TOTAL = 4 * 1024 * 1024
"""Bytes of arguments inside one question; what does not fit is handed over before."""
_STAGINGS = 5
"""How often arguments are handed over that made room for others before they were used."""
_MAX_MESSAGE = 16 * 1024 * 1024
OPTIONS = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.enable_http_proxy", 0))
"""Of a channel to the node."""
_ORGANIZATIONS = "organizations/"


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
            print(f"the node did not take it: {_text(problem)}", file=sys.stderr)
            return 1


def _run(door: GrpcDoor, module: str) -> int:
    asked = door.context()
    try:
        arguments = json.loads(door.arguments() or b"{}")
        # Before the module is imported: libraries look when they are.
        os.environ.update(door.proxies(asked.egress))
        function = find(importlib.import_module(module), asked.function)
        organizations = [_short(each) for each in asked.organizations]
        data = {each.parameter: door.source(each) for each in asked.datasets}
        answer = invoke(function, arguments, data, Context(door, _short(asked.organization), organizations))
    except grpc.RpcError:
        raise
    except Exception as problem:  # noqa: BLE001  # an author's function may raise anything: it must be reported
        failure = failure_of(problem, asked.function)
        print(failure, file=sys.stderr)
        door.fail(failure)
        return 1
    door.submit(answer)
    return 0


_ON_FAILURE = {
    "continue": task_pb2.ON_FAILURE_CONTINUE,
    "cancel-rest": task_pb2.ON_FAILURE_CANCEL_REST,
}


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
        """See ``Door``: one stream, attached again to the same subtask when it breaks."""
        names, questions = split_references(subtask.datasets)
        arguments = {**subtask.arguments, KEY: questions} if questions else subtask.arguments
        content = json.dumps(arguments, separators=(",", ":")).encode()
        bindings = [task_pb2.DatasetBinding(parameter=p, dataset=name) for p, name in names.items()]
        asked = [_short(each) for each in subtask.organizations]
        request = pb.RunSubtaskRequest(
            request_id=str(uuid.uuid4()),
            function=subtask.function,
            targets=[task_pb2.Target(organization=_ORGANIZATIONS + each, datasets=bindings) for each in asked],
            title=subtask.title,
            quorum=subtask.quorum,
            on_failure=_ON_FAILURE[subtask.on_failure],
        )
        if subtask.max_runtime is not None:
            request.max_runtime.FromSeconds(math.ceil(subtask.max_runtime))
        if subtask.timeout is not None:
            request.timeout.FromNanoseconds(int(subtask.timeout * 1e9))
        ended: dict[str, SubtaskResult] = {}
        try:
            self._hand_over(
                request,
                content,
                subtask.files,
                lambda seconds: self._follow(request, subtask.into, ended, seconds),
            )
        except grpc.RpcError as problem:
            raise AlgorithmError(f"the subtask {subtask.function} failed: {_text(problem)}") from problem
        missing = Failure("NO_RESULT", "the subtask ended without an answer of this organization")
        return [ended.get(each, SubtaskResult(each, failure=missing)) for each in asked]

    def _hand_over(
        self,
        request: pb.RunSubtaskRequest,
        content: bytes,
        files: Mapping[str, Any],
        follow: Callable[[float], None],
    ) -> None:
        """Put arguments into the targets of a question, and ask: what does not fit into it is handed over before."""
        left = _STAGINGS
        while True:
            if not files and len(content) * len(request.targets) <= _INLINE_TOTAL:
                payload = types_pb2.Payload(media_type=JSON, sealing=types_pb2.SEALING_NONE, inline=content)
            else:
                payload = self._stage(content, files)
            for target in request.targets:
                target.arguments.CopyFrom(payload)
            try:
                return self._patience.repeat(follow)
            except grpc.RpcError as problem:
                left -= 1
                refused = refusal(problem)
                if not left or refused is None or refused.reason is not Reason.ARGUMENTS_NOT_STAGED:
                    raise

    def _stage(self, content: bytes, files: Mapping[str, Any]) -> types_pb2.Payload:
        """Hand over arguments for subtasks; what was written for that is gone when this returns."""
        media_type = argument_files.MEDIA_TYPE if files else JSON
        with sent_files(files) as sent:

            def parts() -> Iterator[pb.StageArgumentsRequest]:
                yield pb.StageArgumentsRequest(header=pb.ArgumentsHeader(media_type=media_type))
                for block in blocks_of(content, sent):
                    yield pb.StageArgumentsRequest(chunk=block)

            staged = self._persist(self._stub.StageArguments, parts)
        return types_pb2.Payload(media_type=media_type, size_bytes=staged.size_bytes, digest=staged.digest)

    def _follow(
        self, request: pb.RunSubtaskRequest, into: Path | None, ended: dict[str, SubtaskResult], seconds: float
    ) -> None:
        """Read events until the subtask has ended; notes in the request up to where, for the next time."""
        asked = {each.organization for each in request.targets}
        events = self._stub.RunSubtask(request, metadata=self._metadata, wait_for_ready=True, timeout=seconds)
        for answer in events:
            event = answer.event
            match event.WhichOneof("event"):
                case "snapshot":
                    for run in event.snapshot.task.runs:
                        if run.organization in asked:  # their names become names of files
                            self._take(run, into, ended, seconds)
                    if event.snapshot.task.state > task_pb2.TASK_STATE_ACTIVE:
                        return  # all there is: no event follows
                case "run_finished" if event.run_finished.run.organization in asked:
                    self._take(event.run_finished.run, into, ended, seconds)
                case "task_finished":
                    return
            request.after_sequence = max(request.after_sequence, event.sequence)

    def _take(self, run: task_pb2.Run, into: Path | None, ended: dict[str, SubtaskResult], seconds: float) -> None:
        organization = _short(run.organization)
        if run.state == task_pb2.RUN_STATE_SUCCEEDED:
            if organization not in ended:
                ended[organization] = self._result(organization, run.result, into, seconds)
        elif run.state > task_pb2.RUN_STATE_SUCCEEDED:
            state = task_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_")
            ended[organization] = SubtaskResult(
                organization, failure=Failure(run.failure.reason or state, run.failure.message or f"the run is {state}")
            )

    def _result(
        self, organization: str, payload: types_pb2.Payload, into: Path | None, seconds: float
    ) -> SubtaskResult:
        """The result inside an event, or the one that it refers to.

        Raises:
            grpc.RpcError: the node went away meanwhile.
        """
        blocks: Iterable[bytes] = (payload.inline,)
        if payload.WhichOneof("content") == "reference":
            request = pb.ReadSubtaskResultRequest(run=payload.reference)
            read = self._stub.ReadSubtaskResult(request, metadata=self._metadata, wait_for_ready=True, timeout=seconds)
            blocks = (each.chunk for each in read)
        try:
            return taken(organization, payload.media_type, blocks, into)
        except grpc.RpcError as problem:
            refused = refusal(problem)
            if refused is None:
                raise
            return SubtaskResult(organization, failure=Failure(refused.reason.name, refused.message))


def _parts(answer: Answer) -> Iterator[pb.SubmitResultRequest]:
    yield pb.SubmitResultRequest(header=pb.ResultHeader(media_type=answer.media_type))
    for block in answer.blocks():
        yield pb.SubmitResultRequest(chunk=block)


def _short(organization: str) -> str:
    return organization.removeprefix(_ORGANIZATIONS)


def _text(problem: Any) -> str:
    return f"{problem.details()} [{problem.code().name}]" if isinstance(problem, grpc.Call) else str(problem)
