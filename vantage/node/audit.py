"""The node's audit log: who asked what, what was decided and why, what ran, what left. It never leaves the node.

``audit.log`` in the data directory, in the form of ``vantage.common.audit``; the node's key signs the checkpoints.
What is going to leave is on disk before it leaves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_pb2
from vantage.common import dsse, pki
from vantage.common.audit import AuditLog, Value
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.node.door import StoredResult

log = logging.getLogger(__name__)

FILE = "audit.log"
_LAZY_SECONDS = 0.05
"""How long a line that nobody waits for waits for others to share its way to the disk."""
_MAX_TEXT = 500
"""Characters of a text that somebody else wrote."""
_MAX_ITEMS = 50

_Line = tuple[str, Mapping[str, Value]]


class NodeAudit:
    """Writes the log on a thread of its own: lines that wait together share one sync. Call from one event loop.

    Args:
        path: the file; continued when it exists.
        key: the node's; signs the checkpoints.
        clock: the time.

    Raises:
        ConfigurationError: an existing file is damaged or cannot be opened.
    """

    def __init__(self, path: Path, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        try:
            self._log = AuditLog(path, key, clock)
        except OSError as problem:
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"the audit log {path} cannot be written: {problem.strerror}: check the disk and its permissions",
                path=str(path),
            ) from problem
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._waiting: list[_Line] = []
        self._timer: asyncio.TimerHandle | None = None
        self._problem: str | None = None

    def note(self, event: str, **fields: Value) -> None:
        """Write a line soon, in order; ``settle`` waits for it."""
        self._waiting.append((event, fields))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LAZY_SECONDS, self._flush)

    def decided(self, assign: pb.Assign, refusal: VantageError | None, signers: Sequence[str] = ()) -> None:
        """The node has decided about a run, and by whose signatures its image is trusted."""
        spec = assign.spec
        target = spec.targets[0] if spec.targets else None
        fields: dict[str, Value] = {
            **_run(assign.lease),
            "who": _cut(assign.creator),
            "organization": _cut(assign.creator_organization),
            "collaboration": _cut(spec.collaboration),
            "image": _cut(spec.image),
            "function": _cut(spec.function),
            "datasets": [_cut(each.dataset) for each in target.datasets][:_MAX_ITEMS] if target is not None else [],
            "arguments_digest": _cut(target.arguments.digest) if target is not None else "",
            "arguments_bytes": target.arguments.size_bytes if target is not None else 0,
            "decision": "allowed" if refusal is None else "refused",
        }
        if signers:
            fields["signers"] = [_cut(each) for each in signers][:_MAX_ITEMS]
        if refusal is not None:
            fields |= {"reason": refusal.reason.name, "message": _cut(refusal.message)}
        self.note("run.decided", **fields)

    def adopted(self, lease: pb.Lease, container: str) -> None:
        """The node goes on with a container that its former process started."""
        self.note("run.adopted", **_run(lease), container=container)

    def leaves(self, lease: pb.Lease, result: StoredResult) -> None:
        """A result is going to leave."""
        self.note(
            "run.result", **_run(lease), digest=result.digest, bytes=result.size, media_type=_cut(result.media_type)
        )

    def blanked(self, lease: pb.Lease, parts: int) -> None:
        """Parts of a result stay here, since they are about too few persons."""
        self.note("run.blanked", **_run(lease), parts=parts)

    def asks(self, run: str, function: str, target: task_pb2.Target) -> None:
        """A run's question to another organization is going to leave, with its arguments as they are sent."""
        arguments = target.arguments
        # What the algorithm itself says of its bytes is not taken over.
        own = arguments.WhichOneof("content") == "inline"
        self.note(
            "run.subtask",
            run=_cut(run),
            function=_cut(function),
            organization=_cut(target.organization),
            node=_cut(target.node),
            datasets=[_cut(each.dataset) for each in target.datasets][:_MAX_ITEMS],
            arguments_digest=dsse.digest_of(arguments.inline) if own else _cut(arguments.digest),
            arguments_bytes=len(arguments.inline) if own else arguments.size_bytes,
        )

    def connected(self, lease: pb.Lease, what: str, refusal: VantageError | None) -> None:
        """A run asked to be connected: with ``dataset:NAME`` or ``HOST:PORT``."""
        fields: dict[str, Value] = {**_run(lease), "to": _cut(what)}
        fields["decision"] = "connected" if refusal is None else "refused"
        if refusal is not None:
            fields["reason"] = refusal.reason.name
        self.note("run.connect", **fields)

    def disconnected(self, lease: pb.Lease, what: str, sent: int, received: int) -> None:
        """A connection of a run has ended."""
        self.note("run.disconnect", **_run(lease), to=_cut(what), bytes_sent=sent, bytes_received=received)

    def queried(self, lease: pb.Lease, dataset: str, query: str, rows: int, size: int) -> None:
        """The node has asked a dataset for a run; the values of the question are not written down."""
        self.note("run.query", **_run(lease), dataset=_cut(dataset), query=_cut(query), rows=rows, bytes=size)

    def ended(self, lease: pb.Lease, reason: str) -> None:
        """A run ended without a result."""
        self.note("run.ended", **_run(lease), reason=_cut(reason))

    def renewed(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        """The node has a new key: what was written so far is signed with the old one, what follows with the new."""
        self.note("node.renewed", certificate=pki.fingerprint(certificate))
        self._flush()
        self._thread.submit(self._log.change_key, key)

    async def settle(self) -> None:
        """Wait until everything that was noted is on disk.

        Raises:
            RunError: SCRATCH_UNAVAILABLE: it is not, and never will be by this process; nothing may leave.
        """
        self._flush()
        await asyncio.get_running_loop().run_in_executor(self._thread, _nothing)
        if self._problem is not None:
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                "the node cannot write its audit log, so nothing may leave it: its admin makes room on the disk and "
                "restarts it",
            )

    async def close(self) -> None:
        """Write what waits, sign, and close the file."""
        self._flush()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            lines, self._waiting = self._waiting, []
            self._thread.submit(self._write, lines)

    # On the thread.

    def _write(self, lines: list[_Line]) -> None:
        if self._problem is not None:
            return  # a line is missing: what follows would only hide that
        try:
            self._log.append_all(lines)
        except (OSError, ValueError) as problem:
            self._problem = str(problem)
            log.error("audit log cannot be written", extra={"problem": self._problem})

    def _close(self) -> None:
        try:
            if self._problem is None:
                self._log.checkpoint()
            self._log.close()
        except OSError as problem:
            log.error("audit log cannot be closed", extra={"problem": str(problem)})


def _nothing() -> None:
    """Runs after what was queued before it."""


def _run(lease: pb.Lease) -> dict[str, Value]:
    return {"run": _cut(lease.run), "attempt": lease.attempt}


def _cut(text: str) -> str:
    return text[:_MAX_TEXT]
