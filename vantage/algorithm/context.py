"""What a running function is told, and what it may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.values import plain, received
from vantage.common.errors import AUTHOR_REASONS, Reason

if TYPE_CHECKING:
    from vantage.algorithm.peers import Peers


OnFailure = Literal["continue", "cancel-rest"]


@dataclass(frozen=True)
class Failure:
    """Why an organization has no result."""

    reason: str
    message: str


@dataclass(frozen=True)
class SubtaskResult:
    """What one organization answered.

    Attributes:
        organization: id, e.g. "clara".
        value: the result: JSON values, ``pyarrow.Table`` for a table, bytes for anything else; with ``into`` the path
            of the file that holds it. None when it failed.
        failure: why there is none.
        media_type: of the result.
    """

    organization: str
    value: Any = None
    failure: Failure | None = None
    media_type: str = ""

    def get(self) -> Any:
        """The result.

        Raises:
            AlgorithmError: the organization has none; with its reason.
        """
        if self.failure is None:
            return self.value
        known = Reason.__members__.get(self.failure.reason, Reason.ALGORITHM_FAILED)
        reason = known if known in AUTHOR_REASONS else Reason.ALGORITHM_FAILED
        raise AlgorithmError(f"{self.organization}: {self.failure.message} [{self.failure.reason}]", reason=reason)


def taken(organization: str, media_type: str, blocks: Iterable[bytes], into: Path | None) -> SubtaskResult:
    """What an organization answered, out of its bytes; see ``values.received``.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        return SubtaskResult(organization, received(media_type, blocks, into, organization), media_type=media_type)
    except (ValueError, OSError, RecursionError) as problem:
        if into is not None:
            raise
        text = f"the result is not {media_type} ({type(problem).__name__})"
        return SubtaskResult(organization, failure=Failure("RESULT_NOT_SERIALIZABLE", text))


@dataclass(frozen=True)
class Subtask:
    """A question to other organizations; see ``Context.subtask``."""

    function: str
    arguments: Mapping[str, Any]
    organizations: Sequence[str]
    datasets: Mapping[str, str]
    title: str
    timeout: float | None
    quorum: int = 0
    on_failure: OnFailure = "continue"
    max_runtime: float | None = None
    into: Path | None = None
    files: Mapping[str, Any] = field(default_factory=dict)


class Door(Protocol):
    """The world outside the function: the node's local API, or the local runner."""

    def progress(self, fraction: float, message: str) -> None:
        """Tell how far the work is."""

    def subtask(self, subtask: Subtask) -> list[SubtaskResult]:
        """Ask, and wait for all answers."""

    def peers(self) -> Peers:
        """Talk to the other runs of the job."""

    def forward(self, host: str, port: int) -> tuple[str, int]:
        """Lead a port here to a host outside."""


class Context:
    """Handed to a function that has a parameter of this type.

    Attributes:
        organization: id of the organization where the function runs.
        organizations: ids of all organizations of the collaboration.
    """

    def __init__(self, door: Door, organization: str, organizations: Sequence[str]) -> None:
        self._door = door
        self.organization = organization
        self.organizations = tuple(organizations)

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell the researcher how far the work is.

        Args:
            fraction: 0 to 1.
            message: short text; never put data here.
        """
        if not 0 <= fraction <= 1:
            raise ValueError("the fraction of a progress must be 0 to 1")
        self._door.progress(fraction, message)

    def subtask(
        self,
        function: Callable[..., Any] | str,
        arguments: Mapping[str, Any] | None = None,
        *,
        organizations: Sequence[str] | None = None,
        datasets: Mapping[str, str] | None = None,
        title: str = "",
        timeout: float | None = None,
        quorum: int = 0,
        on_failure: OnFailure = "continue",
        max_runtime: float | None = None,
        into: Path | str | None = None,
        files: Mapping[str, Any] | None = None,
    ) -> list[SubtaskResult]:
        """Run a function of this image at organizations and wait until all have ended.

        Args:
            function: declared function, or its name.
            arguments: the same for all, of up to 64 MiB as JSON; what is not JSON becomes it as in results.
            organizations: whom to ask; everyone when left out.
            datasets: data parameter -> name of the dataset at the node.
            title: for people.
            timeout: seconds; at most what is left of the task's own time.
            quorum: how many answers suffice: the others are cancelled then, and fail with QUORUM_REACHED; 0 for all.
            on_failure: "cancel-rest" to wait for nobody any more once one has failed.
            max_runtime: seconds that the function may take at each; at most what the task itself allows.
            into: directory for the results, as files named after their organizations, which replace what was there:
                each value is a path. Of a result only a piece is in memory then, whatever its size.
            files: data parameter of the function -> what it reads in place of a dataset of the node: a file (.csv,
                .parquet, .arrow; any other for a parameter that takes a path), a ``pandas.DataFrame``, a
                ``pyarrow.Table``, or bytes (for a parameter that takes a path). Of up to what the nodes take.

        Returns:
            One per organization, in the order asked. A failure is an answer: see ``SubtaskResult.get``.

        Raises:
            AlgorithmError: the subtask could not be created; ARGUMENTS_INVALID, something is not as it must be.
            OSError: a file cannot be written.
        """
        asked = self.organizations if organizations is None else organizations
        if not asked or len(set(asked)) != len(asked):
            raise AlgorithmError("a subtask needs at least one organization, and each once")
        name = function if isinstance(function, str) else function.__name__
        if not 0 <= quorum <= len(asked) or on_failure not in get_args(OnFailure):
            raise AlgorithmError("a quorum is at most as many as are asked, on_failure 'continue' or 'cancel-rest'")
        if both := {*(datasets or {})} & {*(files or {})}:
            text = f"{', '.join(sorted(both))}: a data parameter reads a dataset of the node, or a file that is sent"
            raise AlgorithmError(text, reason=Reason.ARGUMENTS_INVALID)
        return self._door.subtask(
            Subtask(
                name,
                _as_json(arguments or {}),
                tuple(asked),
                datasets or {},
                title,
                timeout,
                quorum,
                on_failure,
                max_runtime,
                None if into is None else Path(into),
                files or {},
            )
        )

    def peers(self) -> Peers:
        """Talk to the other runs of the job: ``async with ctx.peers() as peers: ...``; for asynchronous functions.

        Raises:
            AlgorithmError: there is no node here that connects runs.
        """
        return self._door.peers()

    def forward(self, host: str, port: int) -> tuple[str, int]:
        """Connect with a host outside, for programs that know neither vantage nor HTTP proxies.

        The function must declare the host (``@function(egress=["HOST:PORT"])``), and the node's policy allow it; HTTP
        clients need nothing of this: they find a proxy in the environment (HTTP_PROXY, HTTPS_PROXY).

        Returns:
            Address and port here whose connections lead there. One that the node refuses is broken at once, and the
            reason is printed.

        Raises:
            AlgorithmError: there is no node here.
        """
        return self._door.forward(host, port)

    async def subtask_async(
        self,
        function: Callable[..., Any] | str,
        arguments: Mapping[str, Any] | None = None,
        *,
        organizations: Sequence[str] | None = None,
        datasets: Mapping[str, str] | None = None,
        title: str = "",
        timeout: float | None = None,  # noqa: ASYNC109  # of the subtask, kept by the server; not of this wait
        quorum: int = 0,
        on_failure: OnFailure = "continue",
        max_runtime: float | None = None,
        into: Path | str | None = None,
        files: Mapping[str, Any] | None = None,
    ) -> list[SubtaskResult]:
        """``subtask`` for asynchronous functions: several can wait at once."""
        return await asyncio.to_thread(
            self.subtask,
            function,
            arguments,
            organizations=organizations,
            datasets=datasets,
            title=title,
            timeout=timeout,
            quorum=quorum,
            on_failure=on_failure,
            max_runtime=max_runtime,
            into=into,
            files=files,
        )


def _as_json(arguments: Mapping[str, Any]) -> Any:
    try:
        return plain(arguments, "arguments")
    except AlgorithmError as problem:
        raise AlgorithmError(f"the subtask's {problem.message}", reason=Reason.ARGUMENTS_INVALID) from None
