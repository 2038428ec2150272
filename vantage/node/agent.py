"""The node's program: puts the parts together, keeps the session, stops in order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.metadata
import logging
import os
import signal
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.backoff import Backoff
from vantage.common.clock import Clock, SystemClock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.trust_record import Change
from vantage.node import admin, renewal
from vantage.node.answers import Answers
from vantage.node.attempts import Tools
from vantage.node.audit import FILE as AUDIT_FILE
from vantage.node.audit import NodeAudit
from vantage.node.boxes import Boxes
from vantage.node.capacity import places_of
from vantage.node.config import NodeConfig
from vantage.node.connection import Connection, FatalError
from vantage.node.datasets.catalogue import catalogue
from vantage.node.executor.base import Executor
from vantage.node.identity import Identity
from vantage.node.journal import Journal
from vantage.node.keeper import SessionKeeper
from vantage.node.payloads import Payloads
from vantage.node.questions import Questions
from vantage.node.release.approvals import Approvals
from vantage.node.release.consent import Consent
from vantage.node.release.examiner import Examiner
from vantage.node.reporting import News, Reporter
from vantage.node.run_door import Serve
from vantage.node.runner import Runner
from vantage.node.secrecy import build_secrecy
from vantage.node.services import Services
from vantage.node.session import Session, Settings
from vantage.node.sources import CodeSource
from vantage.node.status import Document
from vantage.node.subtasks import Subtasks
from vantage.node.transport import Transport
from vantage.node.transport_choice import TransportChoice
from vantage.node.trust import BundleKeeper, describe, open_store
from vantage.node.tunnels.build import build_tunnels

log = logging.getLogger(__name__)

_FAREWELL_SECONDS = 10.0
"""How long the node waits at the end for the server to acknowledge what it said."""

Say = Callable[[str], None]
"""Tells a person something, on the console."""
Publish = Callable[[], Coroutine[None, None, None]]
"""Tells the server the node's keys, when it does not know them."""


@dataclass(frozen=True)
class Parts:
    """What depends on the executor: where code comes from, what runs it, how its local API is served.

    Attributes:
        connected: is told of the way to the server, for what is asked there on behalf of the source.
    """

    source: CodeSource
    executor: Executor
    serve: Serve
    connected: Callable[[Connection], None] = lambda _connection: None


@dataclass
class Stop:
    """How the agent is asked to end: first ask = finish and take no more, second = cancel."""

    drain: asyncio.Event = field(default_factory=asyncio.Event)
    cancel: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self) -> None:
        """Ask once more."""
        (self.cancel if self.drain.is_set() else self.drain).set()


class Agent:
    """A node.

    Args:
        config: what its admin wrote.
        parts: what runs algorithms.
        clock: the time.
        backoff: between sessions.
        say: the console.
    """

    def __init__(
        self,
        config: NodeConfig,
        parts: Parts,
        *,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        say: Say = print,
    ) -> None:
        self.stop = Stop()
        self.connected = asyncio.Event()
        self._config = config
        self._parts = parts
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._say = say
        self._instance = str(uuid.uuid4())
        self._previous = ""
        self._ready_file: Path | None = None
        self._catalogue: list[pb.DatasetInfo] = []

    async def run(self, ready_file: Path | None = None) -> None:
        """Serve until asked to stop.

        Args:
            ready_file: written when the first session is open.

        Raises:
            FatalError: the server does not admit the node.
            VantageError: configuration, identity, data directory or executor are not usable.
        """
        self._ready_file = ready_file
        config = self._config
        with lock_data_dir(config.data_dir):
            self._previous = _previous_instance(config.data_dir, self._instance)
            renewal.finish(config.identity)
            identity = Identity.load(config.identity, self._clock)
            store = open_store(config.data_dir, identity, self._clock, first_use=config.trust.first_use)
            loop = asyncio.get_running_loop()

            def renewed(identity: Identity) -> None:  # on a thread
                store.belongs_to(identity.chain)
                loop.call_soon_threadsafe(audit.renewed, identity.chain[0], identity.key)
                loop.call_soon_threadsafe(work.beat.set)  # the keys are published anew, signed with the new one

            watch = renewal.Renewal(config.identity, identity, self._clock, self._say, renewed)
            connection = Connection(config.server, identity, self._clock, watch)
            self._parts.connected(connection)
            path = config.data_dir / "journal.db"
            journal = await Journal.open(path)
            audit = NodeAudit(config.data_dir / AUDIT_FILE, identity.key, self._clock)
            audit.note("node.started", node=identity.name, server=config.server.address, instance=self._instance)
            news = News(config.limits.max_log_lines)
            payloads = Payloads(connection)
            secrecy = await build_secrecy(config, connection, journal, payloads, store.certify, self._clock)
            reporter = Reporter(journal, news, secrecy.attestor, self._clock)
            tunnels = build_tunnels(config, connection, news, store, self._clock)
            services = Services(config, audit)
            approvals = await Approvals.open(journal, path, audit, self._clock, self._say)
            consent = Consent(identity.name, approvals, self._clock)
            questions = await Questions.open(journal, path)
            answers = Answers(store.certify, secrecy.sealer, payloads, config.limits.max_input_bytes)
            tools = Tools(
                self._parts.source,
                await Boxes.open(journal, path),
                self._parts.executor,
                payloads,
                Subtasks(connection, secrecy.subtasks, answers, audit, questions, consent, self._clock),
                self._parts.serve,
                tunnels,
                services,
                audit,
                secrecy.gate,
                secrecy.sealer,
                Examiner(),
                consent,
            )
            runner = Runner(config, journal, reporter, tools, self._clock)
            bundle = BundleKeeper(store, connection, lambda change: self._trust_changed(change, audit))
            work = _Work(self, runner, bundle, partial(secrecy.publish, connection, self._say))
            try:
                self._catalogue = await catalogue(services.asker, config.datasets)
                await runner.recover()
                choice = TransportChoice(config.server.transport)
                work.keeper = keeper = SessionKeeper(
                    connection,
                    choice,
                    self._backoff,
                    lambda transport: Session(
                        connection, transport, journal, news, work, partial(self._hello, journal, runner, transport)
                    ),
                    work.publish,
                    self._say,
                    self.connected,
                )
                commands: dict[str, admin.Command] = {
                    **approvals.commands(),
                    "status": partial(self._status, journal, runner),
                }
                async with admin.serve(config.data_dir, commands):
                    await self._serve(connection, journal, keeper, work)
            finally:
                await runner.leave()
                await tunnels.close()
                services.close()
                audit.note("node.stopped", node=identity.name, instance=self._instance)
                await audit.close()
                await journal.close()
                await connection.close()
                await self._parts.executor.close()

    async def _serve(self, connection: Connection, journal: Journal, sessions: SessionKeeper, work: _Work) -> None:
        keeper = asyncio.create_task(sessions.run(), name="session keeper")
        closer = asyncio.create_task(self._close_down(journal, work.runner, sessions), name="closer")
        bundle = asyncio.create_task(work.bundle.run(), name="trust bundle")
        certificate = asyncio.create_task(self._keep_certificate(connection, work), name="certificate")
        tasks = {keeper, closer, bundle, certificate}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            await sessions.close()
        except FatalError as problem:
            # Whichever task noticed it: the process ends for this, and a person must know why.
            self._say(f"the server does not admit this node: {problem.cause}")
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _status(self, journal: Journal, runner: Runner, _question: Mapping[str, Any], _who: str) -> Document:
        return {
            "node": self._config.identity.name,
            "server": self._config.server.address,
            "connected": self.connected.is_set(),
            "stopping": self.stop.drain.is_set(),
            "unacknowledged": journal.unacknowledged,
            **runner.status(),
        }

    async def _close_down(self, journal: Journal, runner: Runner, sessions: SessionKeeper) -> None:
        """Returns when the node may end: nothing runs, and the server knows how all ended (or cannot be told now).

        With ``on_stop: leave`` at once: the next process goes on with what runs, and says what was not said.
        """
        await self.stop.drain.wait()
        if self._config.on_stop == "leave":
            self._say("stopping: what runs is left alone; the next start goes on with it")
            return
        self._say("stopping: finishing what runs, taking no more; stop once more to cancel it")
        if left := runner.drain():
            self._say(f"{left} runs that have not begun, or wait for a person, are left to the next start")
        sessions.beat()  # so that the server gives nothing more from now on
        idle = asyncio.create_task(runner.idle())
        cancel = asyncio.create_task(self.stop.cancel.wait())
        try:
            await asyncio.wait({idle, cancel}, return_when=asyncio.FIRST_COMPLETED)
            if not idle.done():
                self._say("cancelling what runs")
                runner.cancel_all(Reason.NODE_STOPPING)
                await idle
        finally:
            idle.cancel()
            cancel.cancel()
            await asyncio.gather(idle, cancel, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await journal.wait_settled()
        if not journal.settled:
            self._say("the server has not acknowledged everything: the rest is said at the next start")

    async def _keep_certificate(self, connection: Connection, work: _Work) -> None:
        """With each heartbeat: is there a new certificate, does the present one end soon?"""
        while True:
            await work.beat.wait()
            work.beat.clear()
            try:
                await connection.look_for_renewal()
                # A list of keys ends with the certificate that signed it.
                await work.publish()
            except VantageError as problem:
                log.warning("new certificate not shown yet", extra={"reason": problem.reason.name})

    def _hello(self, journal: Journal, runner: Runner, transport: Transport) -> pb.Hello:
        return pb.Hello(
            version=importlib.metadata.version("vantage"),
            instance_id=self._instance,
            datasets=self._catalogue,
            leases=journal.leases(),
            slots=places_of(self._config),
            transport=transport.kind,
            executor=self._config.executor,
            stopping=runner.stopping(),
        )

    def _announce(self, settings: Settings) -> None:
        self.connected.set()
        served = ", ".join(settings.collaborations) or "no collaboration yet"
        self._say(f"ready: {self._config.identity.name} connected to {self._config.server.address}, serves {served}")
        if settings.fenced_instance not in ("", self._instance, self._previous):
            log.warning(
                "session of another process with this identity ended",
                extra={"own_instance": self._instance, "other_instance": settings.fenced_instance},
            )
            self._say(
                f"another process connected as {self._config.identity.name} (instance {settings.fenced_instance}), and "
                "was turned away for this one: if it still runs, stop it, or give it an identity of its own"
            )
        if self._ready_file is not None:
            self._ready_file.write_text(f"{os.getpid()}\n")

    def _trust_changed(self, change: Change, audit: NodeAudit) -> None:
        audit.note(f"trust.{change.what.value}", organization=change.organization, detail=change.detail[:500])
        self._say(describe(change))


class _Work:
    """``Work`` that tells the agent when a session is open, and the bundle's keeper which bundle there is."""

    def __init__(self, agent: Agent, runner: Runner, bundle: BundleKeeper, publish: Publish) -> None:
        self.runner = runner
        self.publish = publish
        self.bundle = bundle
        self.beat = asyncio.Event()
        self.keeper: SessionKeeper | None = None
        self._agent = agent
        self.assigned = runner.assigned
        self.cancel = runner.cancel
        self.revoke = runner.revoke
        self.free_slots = runner.free_slots
        self.stopping = runner.stopping
        self.offered = runner.offered

    def welcomed(self, settings: Settings) -> None:
        """See ``Work``."""
        self.runner.welcomed(settings)
        self.bundle.welcomed()
        self.beat.set()
        self._agent._announce(settings)

    def trust_version(self, version: int) -> None:
        """See ``Work``; comes with each answer to a heartbeat."""
        self.bundle.told(version)
        self.beat.set()
        if self.keeper is not None:
            self.keeper.heard()


def _previous_instance(directory: Path, instance: str) -> str:
    """The instance of the process before this one, whose session the server may still hold; notes the present one."""
    path = directory / "instance"
    before = ""
    with contextlib.suppress(OSError):  # only a message depends on it
        before = path.read_text(errors="replace").strip() if path.exists() else ""
        path.write_text(f"{instance}\n")
    return before


@contextlib.contextmanager
def lock_data_dir(directory: Path) -> Iterator[None]:
    """Hold the data directory for this process; the kernel lets go of it when the process dies.

    Raises:
        ConfigurationError: another process holds it, or it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise error(
            Reason.CONFIGURATION_INVALID,
            f"data_dir {directory} cannot be used: {problem.strerror}",
            path=str(directory),
        ) from problem
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"another node (process {holder}) uses data_dir {directory}: stop it first, or give this one a "
                "data_dir of its own",
                path=str(directory),
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def handle_signals(stop: Stop) -> None:
    """SIGTERM and SIGINT: finish, take no more; the second: cancel."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
