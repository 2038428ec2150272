"""The one door of a running algorithm, seen from the node: what it may know, and what it may ask."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.task.v1 import task_pb2
from vantage.common.errors import VantageError
from vantage.node.orders import GivenOrder
from vantage.node.release.terms import FREE, Terms

if TYPE_CHECKING:
    from vantage.node.executor.base import Exit

SOCKET_NAME = "api.sock"
"""File name of the local API's socket in its directory."""


@dataclass(frozen=True)
class ServiceConnection:
    """What a connection with a service leads to.

    Attributes:
        dialect: of the database, as in its URL.
        database: its name.
        cdm_schema: schema with the tables of the OMOP Common Data Model, or empty.
        cdm_version: version of that model, or empty.
    """

    dialect: str
    database: str
    cdm_schema: str = ""
    cdm_version: str = ""


@dataclass(frozen=True)
class Question:
    """A query of a dataset with its values, checked against the bounds that the dataset sets."""

    query: str
    values: Mapping[str, bool | int | float | str | date]


@dataclass(frozen=True)
class BoundDataset:
    """A dataset that a run may read.

    Attributes:
        parameter: parameter of the function.
        dataset: name at the node.
        format: as the algorithm is told; the answer to a query is ``parquet``.
        source: file or folder at the node; that of a service is made in the directory of the run, before it begins.
        path: the same as the algorithm sees it.
        sheet: of a workbook.
        connection: what a service leads to that the run may connect to; None for files.
        question: what the service is asked before the run begins; None when nothing is asked.
    """

    parameter: str
    dataset: str
    format: str
    source: Path
    path: str
    sheet: str = ""
    connection: ServiceConnection | None = None
    question: Question | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RunContext:
    """What a run is told by the local API.

    Attributes:
        run: ``tasks/{task}/runs/{run}``.
        function: what to execute.
        organization: where it runs.
        collaboration: in whose name.
        organizations: all of the collaboration.
        datasets: those of this run.
        arguments: the opened arguments, a JSON object.
        arguments_media_type: their media type.
        max_result_bytes: largest result that is taken.
        deadline: when the run is ended.
        image: image by digest.
        token: what each call must carry.
        terms: what must hold before anything of the run leaves.
        order: the signed order that the run obeys, in whose name it may ask others; None for an unsigned task.
        attempt: number of the attempt, from 1.
        declared_egress: hosts that its function declares, ``HOST:PORT``.
        egress: those of them that the policy allows.
    """

    run: str
    function: str
    organization: str
    collaboration: str
    organizations: tuple[str, ...]
    datasets: tuple[BoundDataset, ...]
    arguments: bytes
    arguments_media_type: str
    max_result_bytes: int
    deadline: datetime
    image: str
    token: str
    order: GivenOrder | None = None
    terms: Terms = FREE
    attempt: int = 1
    declared_egress: tuple[str, ...] = ()
    egress: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """``tasks/{task}``."""
        return self.run.partition("/runs/")[0]


@dataclass(frozen=True)
class StoredResult:
    """A result, or arguments of a subtask, that is complete at the node.

    Attributes:
        media_type: media type of the bytes.
        content: the bytes, or the file that holds them; whoever made this has moved it into place.
        size: number of bytes.
        digest: ``sha256:`` and 64 hexadecimal digits.
    """

    media_type: str
    content: bytes | Path
    size: int
    digest: str


class ByteStream(Protocol):
    """A connection of a run with something outside: bytes in both directions, each ended by itself."""

    async def read(self) -> bytes:
        """The next bytes, at most 1 MiB; none when the other side has finished.

        Raises:
            VantageError: the connection broke.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the other side does not read.

        Raises:
            VantageError: the connection broke.
        """
        ...

    async def finish(self) -> None:
        """Say that no more comes; reading goes on.

        Raises:
            VantageError: the connection broke.
        """
        ...

    def close(self) -> None:
        """End the connection; breaks it unless both sides have finished. May be called again."""
        ...


class RunCallbacks(Protocol):
    """What a run may ask its node."""

    def progress(self, fraction: float, message: str) -> None:
        """The run is so far."""
        ...

    async def result(self, result: StoredResult) -> None:
        """The run has an answer, durable when this returns; the same again is harmless.

        Raises:
            ConflictError: RESULT_ALREADY_SUBMITTED with other bytes.
            RunError: SCRATCH_UNAVAILABLE, it cannot be written down.
        """
        ...

    async def result_refused(self, problem: VantageError) -> None:
        """The run's answer could not be taken, e.g. RESULT_TOO_LARGE: the researcher is told this."""
        ...

    async def failure(self, reason: str, message: str) -> None:
        """The function failed, with what its author wants to be shown; durable when this returns."""
        ...

    async def stage(self, media_type: str, chunks: AsyncIterator[bytes]) -> StoredResult:
        """Keep arguments, for the subtasks of this run that name them.

        Raises:
            VantageError: as AlgorithmService.StageArguments; that of ``chunks``.
        """
        ...

    def subtask(self, request: algorithm_pb.RunSubtaskRequest) -> AsyncGenerator[task_pb2.TaskEvent, None]:
        """Create a subtask, or attach to it again, and stream its events.

        Raises:
            VantageError: as TaskService.RunTask.
        """
        ...

    def subtask_result(self, run: str) -> AsyncGenerator[bytes, None]:
        """The result of a run of a subtask, in blocks of at most 1 MiB; the first comes when all is verified.

        Raises:
            VantageError: as AlgorithmService.ReadSubtaskResult.
        """
        ...

    async def dial(self, target: algorithm_pb.DialTarget) -> ByteStream:
        """Connect the run with a target; whoever gets the stream closes it.

        Raises:
            VantageError: as AlgorithmService.Dial.
        """
        ...

    def listen(self, label: str) -> AsyncGenerator[algorithm_pb.ListenResponse, None]:
        """Listen on a label while the generator is open.

        Raises:
            VantageError: as AlgorithmService.Listen.
        """
        ...

    def peers(self) -> AsyncGenerator[algorithm_pb.WatchPeersResponse, None]:
        """The runs of the job, again whenever one has changed.

        Raises:
            VantageError: as AlgorithmService.WatchPeers.
        """
        ...


class Door(Protocol):
    """How an executor lets an algorithm reach the node."""

    @property
    def context(self) -> RunContext:
        """What the run is told."""
        ...

    @property
    def callbacks(self) -> RunCallbacks:
        """What the run may ask."""
        ...

    @property
    def scratch(self) -> Path:
        """Directory of this run at the node: results are written here. Removed after the run."""
        ...

    def served(self) -> AbstractAsyncContextManager[Path]:
        """Serve the local API while the context lasts; gives the directory of its socket, to be mounted."""
        ...

    async def created(self, container: str, image: str) -> None:
        """A container was made for the run and has not started; start it when this returns.

        Args:
            container: the engine's id of it.
            image: the engine's id of its image.

        Raises:
            RunError: SCRATCH_UNAVAILABLE, it cannot be written down.
        """
        ...

    def started(self) -> None:
        """The algorithm runs now."""
        ...

    async def ended(self, ended: Exit) -> None:
        """The algorithm has ended like this. What is left of it may be removed when this returns."""
        ...

    def line(self, text: str) -> None:
        """The algorithm printed a line. Never waits."""
        ...
