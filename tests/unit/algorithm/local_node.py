"""A scripted node: AlgorithmService on a unix socket, and the algorithm as a process of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_status import rpc_status

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.algorithm.v1 import algorithm_service_pb2_grpc
from vantage.api.task.v1 import task_pb2
from vantage.common.errors import Reason, error
from vantage.common.rpc import status_of

TOKEN = "token-of-the-run"
HERE = Path(__file__).parent


class LocalNode(algorithm_service_pb2_grpc.AlgorithmServiceServicer):
    """Answers one run; keeps what it was told.

    ``staged``: by digest, what StageArguments got; ``forget`` says how often RunSubtask does not know of it.
    ``subtask_streams``: per call of RunSubtask, the events; a list that ends without task_finished breaks the stream.
    ``subtask_results``: what ReadSubtaskResult streams, by run; ``lost_reads`` of them break after the first chunk.
    """

    def __init__(self, function: str, arguments: bytes = b"{}", datasets: dict[str, Path] | None = None) -> None:
        self.function = function
        self.arguments = arguments
        self.datasets = datasets or {}
        self.progress: list[tuple[float, str]] = []
        self.progressed = threading.Event()
        self.result: tuple[str, bytes] | None = None
        self.chunks: list[int] = []
        self.failure: tuple[str, str] | None = None
        self.refuse_result = False
        self.staged: dict[str, tuple[str, bytes]] = {}
        self.stagings = 0
        self.forget = 0
        self.subtasks: list[pb.RunSubtaskRequest] = []
        self.subtask_streams: list[list[task_pb2.TaskEvent]] = []
        self.subtask_results: dict[str, list[bytes]] = {}
        self.lost_reads = 0

    def GetContext(self, request: Any, context: Any) -> Any:
        self._check(context)
        return pb.GetContextResponse(
            function=self.function,
            organization="organizations/clara",
            organizations=["organizations/clara", "organizations/hilda"],
            datasets=[
                pb.ContextDataset(parameter=name, dataset="d", format=path.suffix[1:], path=str(path))
                for name, path in self.datasets.items()
            ],
        )

    def ReadArguments(self, request: Any, context: Any) -> Any:
        self._check(context)
        for start in range(0, len(self.arguments), 7):
            yield pb.ReadArgumentsResponse(chunk=self.arguments[start : start + 7])

    def ReportProgress(self, request: Any, context: Any) -> Any:
        self._check(context)
        self.progress.append((request.fraction, request.message))
        self.progressed.set()
        return pb.ReportProgressResponse()

    def SubmitResult(self, request_iterator: Any, context: Any) -> Any:
        self._check(context)
        if self.refuse_result:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the result is too large")
        media_type = next(request_iterator).header.media_type
        chunks = [each.chunk for each in request_iterator]
        self.chunks = [len(each) for each in chunks]
        self.result = (media_type, b"".join(chunks))
        return pb.SubmitResultResponse()

    def SubmitFailure(self, request: Any, context: Any) -> Any:
        self._check(context)
        self.failure = (request.reason, request.message)
        return pb.SubmitFailureResponse()

    def StageArguments(self, request_iterator: Any, context: Any) -> Any:
        self._check(context)
        media_type = next(request_iterator).header.media_type
        content = b"".join(each.chunk for each in request_iterator)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.stagings += 1
        self.staged[digest] = media_type, content
        return pb.StageArgumentsResponse(size_bytes=len(content), digest=digest)

    def RunSubtask(self, request: Any, context: Any) -> Any:
        self._check(context)
        self.subtasks.append(request)
        if self.forget:
            self.forget -= 1
            self.staged.clear()
        if any(each.arguments.digest not in self.staged for each in request.targets if each.arguments.digest):
            rich = rpc_status.to_status(status_of(error(Reason.ARGUMENTS_NOT_STAGED, "stage them")))
            context.abort_with_status(rich)
        if not self.subtask_streams:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many subtasks")
        events = self.subtask_streams.pop(0)
        for event in events:
            yield pb.RunSubtaskResponse(event=event)
        if not events or not events[-1].HasField("task_finished"):
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")

    def ReadSubtaskResult(self, request: Any, context: Any) -> Any:
        self._check(context)
        if request.run not in self.subtask_results:
            refused = error(Reason.RESULT_UNVERIFIED, "the result is not to be trusted")
            context.abort_with_status(rpc_status.to_status(status_of(refused)))
        for chunk in self.subtask_results[request.run]:
            yield pb.ReadSubtaskResultResponse(chunk=chunk)
            if self.lost_reads:
                self.lost_reads -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")

    def Dial(self, request_iterator: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no peers here")

    def Listen(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no peers here")

    def WatchPeers(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no peers here")

    def _check(self, context: Any) -> None:
        if ("authorization", f"Bearer {TOKEN}") not in [tuple(each) for each in context.invocation_metadata()]:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")


@contextmanager
def serving(node: LocalNode, directory: Path) -> Iterator[Path]:
    """The node serves on the socket that this gives."""
    server = grpc.server(ThreadPoolExecutor(4))
    # The generated types know the asynchronous server only.
    algorithm_service_pb2_grpc.add_AlgorithmServiceServicer_to_server(node, server)  # type: ignore[arg-type]
    socket = directory / "api.sock"
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        yield socket
    finally:
        server.stop(None).wait()


@contextmanager
def started(node: LocalNode, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The node serves; the algorithm runs as a process. Both are gone at the end."""
    with serving(node, directory) as socket:
        environment = os.environ | {"VANTAGE_SOCKET": str(socket), "VANTAGE_TOKEN": TOKEN, "VANTAGE_MODULE": "sample"}
        process = subprocess.Popen(
            [sys.executable, "-m", "vantage.algorithm"],
            cwd=HERE,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def run(node: LocalNode, directory: Path) -> tuple[int, str]:
    """Exit status and stderr of one run."""
    with started(node, directory) as process:
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors
