"""Questions to other organizations, over the node's local API."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc

from vantage.algorithm.context import Failure, Subtask, SubtaskResult, taken
from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.patience import Patience, refusal
from vantage.algorithm.sent_files import blocks_of, sent_files
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common import argument_files
from vantage.common.data_questions import KEY, split_references
from vantage.common.errors import Reason
from vantage.common.media_types import JSON

_INLINE_TOTAL = 4 * 1024 * 1024
"""Bytes of arguments inside one question; what does not fit is handed over before."""
_STAGINGS = 5
"""How often arguments are handed over that made room for others before they were used."""
_ORGANIZATIONS = "organizations/"
_ON_FAILURE = {
    "continue": task_pb2.ON_FAILURE_CONTINUE,
    "cancel-rest": task_pb2.ON_FAILURE_CANCEL_REST,
}


class Asker:
    """Asks in the name of a run.

    Args:
        stub: of the node's local API.
        metadata: with the token of the run.
        patience: for a node that is restarted meanwhile.
    """

    def __init__(self, stub: Any, metadata: tuple[tuple[str, str], ...], patience: Patience) -> None:
        self._stub = stub
        self._metadata = metadata
        self._patience = patience

    def ask(self, subtask: Subtask) -> list[SubtaskResult]:
        """Ask, and wait for all answers: one stream, attached again to the same subtask when it breaks.

        Raises:
            AlgorithmError: the node, or the server, does not take the question.
            OSError: see ``Context.subtask``.
        """
        names, questions = split_references(subtask.datasets)
        arguments = {**subtask.arguments, KEY: questions} if questions else subtask.arguments
        content = json.dumps(arguments, separators=(",", ":")).encode()
        bindings = [task_pb2.DatasetBinding(parameter=p, dataset=name) for p, name in names.items()]
        asked = [short_name(each) for each in subtask.organizations]
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
            raise AlgorithmError(f"the subtask {subtask.function} failed: {problem_text(problem)}") from problem
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

            staged = self._patience.repeat(
                lambda seconds: self._stub.StageArguments(
                    parts(), metadata=self._metadata, wait_for_ready=True, timeout=seconds
                )
            )
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
        organization = short_name(run.organization)
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


def short_name(organization: str) -> str:
    """The id in an organization's name."""
    return organization.removeprefix(_ORGANIZATIONS)


def problem_text(problem: Any) -> str:
    """What went wrong with a call, for people."""
    return f"{problem.details()} [{problem.code().name}]" if isinstance(problem, grpc.Call) else str(problem)
