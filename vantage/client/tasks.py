"""Asking questions."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from vantage.api.task.v1 import task_pb2
from vantage.api.task.v1 import task_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.client import converters
from vantage.client.admin import pages
from vantage.client.caller import Caller, Patience
from vantage.client.handles import AsyncTaskHandle, follow, opened
from vantage.client.images import AsyncImages
from vantage.client.many import Batch
from vantage.client.models import Answer, Event, Question, Target, Task, TaskState
from vantage.client.payloads import Payloads
from vantage.client.short_names import full, full_node
from vantage.client.values import JSON, encode_arguments
from vantage.common import names
from vantage.common.declaration import Function, validate_arguments
from vantage.common.errors import Reason, VantageError, error

PAGE_SIZE = 100
CREATE_ATTEMPTS = 5
MAX_INLINE_TOTAL = 8 * 1024 * 1024
"""Bytes of all arguments inside one message, which has a limit: with many targets, smaller ones are uploaded, too."""


class AsyncTasks:
    """Tasks: questions to the organizations of a collaboration."""

    def __init__(self, caller: Caller, payloads: Payloads, images: AsyncImages) -> None:
        self._caller = caller
        self._payloads = payloads
        self._images = images

    async def run(
        self,
        image: str,
        function: str,
        arguments: Mapping[str, Any] | Path | None = None,
        collaboration: str = "",
        organizations: Iterable[str] = (),
        targets: Iterable[Target] = (),
        datasets: Mapping[str, str] | None = None,
        title: str = "",
        timeout: timedelta | None = None,
        request_id: str | None = None,
    ) -> AsyncTaskHandle:
        """Ask organizations to run a function of an image. The task is durable when this returns.

        Function, arguments and data parameters are checked against what the image declares, when its registry can be
        reached from here; the nodes check them in any case.

        Args:
            image: by digest.
            function: that the image declares.
            arguments: parameter -> value, or a file with a JSON object.
            collaboration: within which is asked.
            organizations: who is asked; any node of each.
            targets: who is asked, where nodes, arguments or datasets differ; in addition to ``organizations``.
            datasets: data parameter of the function -> dataset of the node.
            title: for people.
            timeout: time limit of the whole task, waiting included; the server's when None.
            request_id: UUID; the same one never creates a second task, but attaches to the first.

        Raises:
            InvalidArgumentError: something is not as it must be; ORGANIZATION_NOT_MEMBER, IMAGE_NOT_BY_DIGEST,
                FUNCTION_UNKNOWN, ARGUMENTS_INVALID.
            PermissionDeniedError: you may not ask in this collaboration.
            NotFoundError: there is no such collaboration.
        """
        question = Question(
            image=image,
            function=function,
            collaboration=collaboration,
            arguments=arguments,
            organizations=tuple(organizations),
            targets=tuple(targets),
            datasets=datasets or {},
            title=title,
            timeout=timeout,
        )
        spec = await self._spec(question)
        return await self._create(pb.RunTaskRequest(request_id=request_id or str(uuid.uuid4()), spec=spec))

    async def run_many(self, questions: Iterable[Question] | AsyncIterable[Question]) -> AsyncIterator[Answer]:
        """Ask many questions over one stream, which is several times as fast as asking one by one.

        Lost connections are made again, and no question is asked twice. A question that the server does not take is
        answered with its failure, and the others go on.

        Args:
            questions: taken as there is room; at most 500 are under way at once.

        Returns:
            The answers, in the order in which they come to be.

        Raises:
            VantageError: the server takes no questions from you at all.
        """
        batch = Batch(self._caller, self._spec, partial(opened, self._payloads))
        async for answer in batch.answers(questions):
            yield answer

    async def get(self, name: str) -> Task:
        """One task with its runs.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = pb.GetTaskRequest(name=full("tasks", name))
        answer = await self._caller.unary(lambda stubs: stubs.tasks.GetTask, request, repeatable=True)
        return converters.task(answer.task)

    async def attach(self, name: str) -> AsyncTaskHandle:
        """A handle of a task that was created before.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return AsyncTaskHandle(self._caller, self._payloads, await self.get(name))

    async def list(
        self,
        collaboration: str = "",
        states: Sequence[TaskState] = (),
        creator: str = "",
        created_after: datetime | None = None,
    ) -> AsyncIterator[Task]:
        """The tasks that you may see, newest first, without results.

        Args:
            collaboration: only those of this one.
            states: only those in one of these.
            creator: only those of this user, or of this node.
            created_after: only those created then or later.
        """
        chosen = pb.TaskFilter(states=[converters.task_state_to_proto(each) for each in states])
        if collaboration:
            chosen.collaboration = full("collaborations", collaboration, field="collaboration")
        if creator:
            chosen.creator = (
                creator if creator.startswith("organizations/") else full("users", creator, field="creator")
            )
        if created_after is not None:
            chosen.created_after.FromDatetime(created_after)

        async def fetch(token: str) -> pb.ListTasksResponse:
            request = pb.ListTasksRequest(page_size=PAGE_SIZE, page_token=token, filter=chosen)
            return await self._caller.unary(lambda stubs: stubs.tasks.ListTasks, request, repeatable=True)

        async for page in pages(fetch):
            for each in page.tasks:
                yield converters.task(each)

    async def cancel(self, name: str) -> Task:
        """Cancel a task and all that it started; harmless when it has ended.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = pb.CancelTaskRequest(name=full("tasks", name))
        answer = await self._caller.unary(lambda stubs: stubs.tasks.CancelTask, request, repeatable=True)
        return converters.task(answer.task)

    async def watch(self, name: str, after_sequence: int = 0) -> AsyncIterator[Event]:
        """The events of a task until its end; goes on by itself after lost connections.

        Args:
            name: of the task.
            after_sequence: of the last event that you have.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        async with aclosing(follow(self._caller, full("tasks", name), after_sequence)) as events:
            async for event in events:
                yield event

    async def _spec(self, question: Question) -> task_pb2.TaskSpec:
        """The message of a question, whose large arguments are uploaded."""
        chosen = [*(Target(each) for each in question.organizations), *question.targets]
        await self._check(question, chosen)
        spec = task_pb2.TaskSpec(
            collaboration=full("collaborations", question.collaboration, field="collaboration"),
            title=question.title,
            image=question.image,
            function=question.function,
        )
        if question.timeout is not None:
            spec.timeout.FromTimedelta(question.timeout)
        limit = MAX_INLINE_TOTAL // max(len(chosen), 1)
        common: types_pb2.Payload | None = None
        for each in chosen:
            if each.arguments is not None:
                payload = await self._pack(each.arguments, limit)
            else:
                common = payload = common or await self._pack(question.arguments, limit)
            spec.targets.append(_target(each, payload, question.datasets))
        return spec

    async def _create(self, request: pb.RunTaskRequest) -> AsyncTaskHandle:
        """Create, again when the connection is lost: the request id makes that safe."""
        patience = Patience()
        for attempt in range(1, CREATE_ATTEMPTS + 1):
            stream = self._events(request)
            try:
                first = await anext(stream, None)
            except VantageError as problem:
                if attempt == CREATE_ATTEMPTS:
                    raise
                await patience.wait_or_raise(problem)
                continue
            if first is None or first.WhichOneof("event") != "snapshot":
                break
            task = converters.task(first.snapshot.task)
            return AsyncTaskHandle(self._caller, self._payloads, task, stream)
        raise error(Reason.PROTOCOL_VIOLATION, "the server's events of a task do not begin with a snapshot")

    async def _events(self, request: pb.RunTaskRequest) -> AsyncIterator[task_pb2.TaskEvent]:
        async for response in self._caller.stream(lambda stubs: stubs.tasks.RunTask, request):
            yield response.event

    async def _pack(self, arguments: Mapping[str, Any] | Path | None, limit: int) -> types_pb2.Payload:
        source = arguments if isinstance(arguments, Path) else encode_arguments(arguments)
        return await self._payloads.pack(source, JSON, limit)

    async def _check(self, question: Question, targets: Sequence[Target]) -> None:
        """Compare a question with what the image declares; say nothing when that cannot be known from here."""
        declaration = await self._images.declaration_if_known(question.image)
        if declaration is None:
            return
        declared = declaration.function(question.function)
        for each in targets:
            given = each.arguments if each.arguments is not None else question.arguments
            if not isinstance(given, Path):
                _compare(declared, given or {})
            bound = each.datasets if each.datasets is not None else question.datasets
            known = {parameter.name for parameter in declared.data}
            if bound.keys() - known or known - bound.keys():
                raise error(
                    Reason.ARGUMENTS_INVALID,
                    f"{declared.name} reads {', '.join(sorted(known)) or 'no data'}; datasets are given for "
                    f"{', '.join(sorted(bound)) or 'none'}: name a dataset for each data parameter",
                    function=declared.name,
                )


def _compare(function: Function, arguments: Mapping[str, Any]) -> None:
    problems = validate_arguments(function, arguments)
    if problems:
        raise error(Reason.ARGUMENTS_INVALID, f"{function.name}: {'; '.join(problems)}", function=function.name)


def _target(target: Target, arguments: types_pb2.Payload, common: Mapping[str, str]) -> task_pb2.Target:
    organization = full("organizations", target.organization, field="organization")
    bound = target.datasets if target.datasets is not None else common
    node = full_node(target.node, organization) if target.node else ""
    if node and str(names.parse(node, "organizations/nodes").parent) != organization:
        raise error(Reason.INVALID_ARGUMENT, f"{node} is not a node of {organization}", field="node")
    return task_pb2.Target(
        organization=organization,
        node=node,
        arguments=arguments,
        datasets=[task_pb2.DatasetBinding(parameter=parameter, dataset=name) for parameter, name in bound.items()],
    )
