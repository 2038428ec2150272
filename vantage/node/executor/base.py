"""What runs algorithms: the protocol that every executor keeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from vantage.node.door import Door

if TYPE_CHECKING:
    from vantage.node.images import VerifiedImage


@dataclass(frozen=True)
class UnsandboxedCode:
    """A Python module that stands in for an image, for development only.

    Attributes:
        module: importable name.
    """

    module: str


@dataclass(frozen=True)
class ProbeCode:
    """The node's own program, in whatever image has what it needs to run: to prove the box, without any data.

    Attributes:
        image_id: of an image that the engine has.
        command: what to start in place of the image's entrypoint.
    """

    image_id: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """What one run may use.

    Attributes:
        memory: bytes.
        cpus: processors, fractions allowed.
        pids: processes and threads.
        scratch: bytes in temporary files.
    """

    memory: int
    cpus: float
    pids: int
    scratch: int


@dataclass(frozen=True)
class Job:
    """One attempt, ready to run. Image, function and arguments have passed every check.

    Attributes:
        run: ``tasks/{task}/runs/{run}``.
        lease_id: names the attempt in labels, so that leftovers can be found.
        code: what to run.
        limits: what it may use.
        environment: in addition to what the executor sets (VANTAGE_SOCKET, VANTAGE_TOKEN).
        gpus: graphics processors that the function needs, each for this run alone.
    """

    run: str
    lease_id: str
    code: VerifiedImage | ProbeCode | UnsandboxedCode
    limits: Limits
    environment: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0


@dataclass(frozen=True)
class Exit:
    """How the algorithm's process ended.

    Attributes:
        status: exit status; 128 + n for signal n.
        out_of_memory: it was killed because it used more memory than allowed.
        out_of_scratch: its scratch area was full.
        tail: last lines that it printed, for the node's admin and, if the policy allows, the researcher.
    """

    status: int
    out_of_memory: bool = False
    out_of_scratch: bool = False
    tail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Existing:
    """The container that a former process made for an attempt, as the journal knows it.

    Attributes:
        run: ``tasks/{task}/runs/{run}``.
        lease_id: of the attempt.
        container: the engine's id of it.
        image: id of the image that it was created from.
    """

    run: str
    lease_id: str
    container: str
    image: str


@dataclass(frozen=True)
class Found:
    """What former processes left at the engine.

    Attributes:
        running: lease ids of containers that still run.
        ended: lease ids of those that ran and have ended.
        unstarted: lease ids of those that were made and never started; they are removed.
        removed: how many were removed.
    """

    running: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()
    unstarted: frozenset[str] = frozenset()
    removed: int = 0


class Executor(Protocol):
    """Runs algorithms. Whatever happens, nothing of a run is left when ``run`` returns or raises; but see ``leave``."""

    async def run(self, job: Job, door: Door) -> Exit:
        """Run an attempt to its end. Calls ``door.started`` once it runs and ``door.line`` for what it prints.

        Where a later process could go on with it, ``door.created`` is called before the algorithm starts, and
        ``door.ended`` before what is left of it is removed.

        When cancelled: ask it to end (SIGTERM), end it after a grace (SIGKILL), remove it, then raise CancelledError.

        Raises:
            UnavailableError: EXECUTOR_UNAVAILABLE, the engine does not answer.
            RunError: SCRATCH_UNAVAILABLE, there is no room.
        """
        ...

    async def adopt(self, existing: Existing, door: Door) -> Exit:
        """Go on with what ``clean_up`` has found, from where it is, to its end. It stays until ``remove``.

        Raises:
            RunError: NODE_LOST, it is not there, not the one that was made for the attempt, or was killed meanwhile.
            UnavailableError: EXECUTOR_UNAVAILABLE.
        """
        ...

    async def remove(self, existing: Existing) -> None:
        """Remove it, running or not, as ``run`` does when it is cancelled. Harmless when it is gone; never raises."""
        ...

    async def clean_up(self, held: Collection[Existing] = ()) -> Found:
        """Remove what former processes of this node left, but what can be adopted.

        Args:
            held: attempts that the node holds.

        Raises:
            UnavailableError: EXECUTOR_UNAVAILABLE.
        """
        ...

    def leave(self) -> None:
        """From now on, what is cancelled is left alone, to be adopted by the next process."""
        ...

    async def close(self) -> None:
        """Let go of the engine."""
        ...
