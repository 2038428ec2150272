"""Asking questions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from vantage.api.task.v1 import task_pb2
from vantage.api.task.v1 import task_service_pb2 as pb
from vantage.client import converters
from vantage.client.admin import pages
from vantage.client.asking import OwnOrder, same_question
from vantage.client.caller import Caller, Patience
from vantage.client.codec import Codec, check_task, own_id
from vantage.client.handles import AsyncTaskHandle, follow
from vantage.client.images import AsyncImages
from vantage.client.many import Batch
from vantage.client.models import Answer, Delegate, Event, OnFailure, Question, Target, Task, TaskState
from vantage.client.short_names import full
from vantage.common.declaration import Function, validate_arguments
from vantage.common.errors import Reason, VantageError, error

PAGE_SIZE = 100
CREATE_ATTEMPTS = 5


class AsyncTasks:
    """Tasks: questions to the organizations of a collaboration."""

    def __init__(self, caller: Caller, codec: Codec, images: AsyncImages) -> None:
        self._caller = caller
        self._codec = codec
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
        study: str = "",
        delegate: Delegate | bool = True,
        files: Mapping[str, Any] | None = None,
        quorum: int = 0,
        on_failure: OnFailure = OnFailure.CONTINUE,
        max_runtime: timedelta | None = None,
        max_attempts: int | None = None,
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
            datasets: data parameter of the function -> dataset of the node; one that answers queries as
                ``NAME:QUERY?PARAMETER=VALUE&...``, of which the server learns the name alone.
            title: for people.
            timeout: time limit of the whole task, waiting included; the server's when None.
            request_id: UUID; the same one never creates a second task, but attaches to the first.
            study: within which of the collaboration is asked; the whole collaboration when empty.
            delegate: what the algorithm may ask of others in your name: anything within the collaboration or study;
                less by a ``Delegate``, nothing with False.
            files: data parameter of the function -> what it reads in place of a dataset of the node: a file of yours
                (.csv, .parquet, .arrow; any other for a parameter that takes a path), a ``pandas.DataFrame``, a
                ``pyarrow.Table``, or bytes (for a parameter that takes a path). They travel like the arguments, sealed
                to the nodes, of any size.
            quorum: how many answers suffice: the runs that are open then are cancelled, with QUORUM_REACHED, and the
                task succeeds; 0 for all.
            on_failure: whether the others go on when an organization gives no answer.
            max_runtime: of the algorithm in one run, in whole seconds; for as long as the nodes allow when None.
            max_attempts: how often a run is given to a node, 1 to 10, when nodes are lost or something around the
                algorithm does not work; the server's, 3, when None.

        Raises:
            InvalidArgumentError: something is not as it must be; ORGANIZATION_NOT_MEMBER, IMAGE_NOT_BY_DIGEST,
                FUNCTION_UNKNOWN, ARGUMENTS_INVALID.
            PermissionDeniedError: you may not ask in this collaboration.
            NotFoundError: there is no such collaboration.
            RefusedError: KEYS_INVALID or KEYS_STALE, an organization's keys are not to be believed.
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
            study=study,
            delegate=delegate,
            files=files or {},
            quorum=quorum,
            on_failure=on_failure,
            max_runtime=max_runtime,
            max_attempts=max_attempts,
        )
        return await self._ask(question, own_id(request_id))

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
        batch = Batch(self._caller, self._spec, self._codec)
        async with aclosing(batch.answers(questions)) as answers:
            async for answer in answers:
                yield answer

    async def get(self, name: str) -> Task:
        """One task with its runs.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = pb.GetTaskRequest(name=full("tasks", name))
        answer = await self._caller.unary(lambda stubs: stubs.tasks.GetTask, request, repeatable=True)
        return check_task(converters.task(answer.task), request.name)

    async def attach(self, name: str) -> AsyncTaskHandle:
        """A handle of a task that was created before.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        task = await self.get(name)
        return AsyncTaskHandle(self._caller, self._codec, task, await self._codec.recognise(task.order))

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

    async def _spec(self, question: Question, request_id: str) -> task_pb2.TaskSpec:
        """The message of a question, whose large arguments are uploaded."""
        await self._check(question)
        return await self._codec.encode(question, request_id)

    async def _ask(self, question: Question, request_id: str) -> AsyncTaskHandle:
        spec = await self._spec(question, request_id)
        try:
            return await self._create(pb.RunTaskRequest(request_id=request_id, spec=spec))
        except VantageError as problem:
            if problem.reason is Reason.KEYS_STALE and spec.order:
                self._codec.forget_keys()
            elif problem.reason is Reason.REQUEST_ID_REUSED and spec.order and problem.metadata.get("task"):
                return await self._attach_earlier(problem, spec, request_id)
            else:
                raise
        # A node has published new keys since they were fetched; nothing was created.
        spec = await self._spec(question, request_id)
        return await self._create(pb.RunTaskRequest(request_id=request_id, spec=spec))

    async def _attach_earlier(self, problem: VantageError, spec: task_pb2.TaskSpec, request_id: str) -> AsyncTaskHandle:
        """The task that an earlier call made with this request id; sealed again, the same question has other bytes.

        Raises:
            ConflictError: REQUEST_ID_REUSED, it asks something else.
        """
        task = await self.get(problem.metadata["task"])
        order = await self._codec.recognise(task.order)
        if order is None or order.order.id != request_id or not same_question(order.order, spec):
            raise problem
        return AsyncTaskHandle(self._caller, self._codec, task, order)

    async def _create(self, request: pb.RunTaskRequest) -> AsyncTaskHandle:
        """Create, again when the connection is lost: the request id makes that safe."""
        order = OwnOrder.made_here(request.spec.order) if request.spec.order else None
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
                await stream.aclose()
                # Something on the way, or the server, has lost or mixed up what it said.
                await patience.wait_unclear(_disorder())
                continue
            task = converters.task(first.snapshot.task)
            return AsyncTaskHandle(self._caller, self._codec, task, order, stream)
        raise _disorder()

    async def _events(self, request: pb.RunTaskRequest) -> AsyncGenerator[task_pb2.TaskEvent, None]:
        async with aclosing(self._caller.stream(lambda stubs: stubs.tasks.RunTask, request)) as responses:
            async for response in responses:
                yield response.event

    async def _check(self, question: Question) -> None:
        """Compare a question with what the image declares; say nothing when that cannot be known from here."""
        targets = [*(Target(each) for each in question.organizations), *question.targets]
        declaration = await self._images.declaration_if_known(question.image)
        if declaration is None:
            return
        declared = declaration.function(question.function)
        for each in targets:
            given = each.arguments if each.arguments is not None else question.arguments
            if not isinstance(given, Path):
                _compare(declared, given or {})
            bound = each.datasets if each.datasets is not None else question.datasets
            files = each.files if each.files is not None else question.files
            known = {parameter.name for parameter in declared.data}
            if sorted([*bound, *files]) != sorted(known):
                raise error(
                    Reason.ARGUMENTS_INVALID,
                    f"{declared.name} reads {', '.join(sorted(known)) or 'no data'}; datasets are given for "
                    f"{', '.join(sorted(bound)) or 'none'}, files for {', '.join(sorted(files)) or 'none'}: name a "
                    "dataset or a file for each data parameter",
                    function=declared.name,
                )


def _disorder() -> VantageError:
    return error(Reason.PROTOCOL_VIOLATION, "the server's events of a task do not begin with a snapshot")


def _compare(function: Function, arguments: Mapping[str, Any]) -> None:
    problems = validate_arguments(function, arguments)
    if problems:
        raise error(Reason.ARGUMENTS_INVALID, f"{function.name}: {'; '.join(problems)}", function=function.name)
