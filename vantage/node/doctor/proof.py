"""What was proved of the box, kept so that a restart need not prove it again while nothing has changed."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.node.config import NodeConfig
from vantage.node.doctor import probe
from vantage.node.doctor.examination import examine
from vantage.node.doctor.findings import PROTECTIONS, Finding
from vantage.node.executor import sandbox
from vantage.node.executor.docker import DockerExecutor

FILE = "doctor.json"
"""In the data directory: the latest proof."""


@dataclass(frozen=True)
class Proof:
    """The outcome of an examination.

    Attributes:
        key: of engine, kernel, image, limits and version of vantage: what was proved holds for these alone.
        time: when.
        findings: one per protection.
    """

    key: str
    time: datetime
    findings: tuple[Finding, ...]

    @property
    def missed(self) -> tuple[Finding, ...]:
        """Protections that did not hold."""
        return tuple(each for each in self.findings if not each.held)


async def prove(config: NodeConfig, image: str, clock: Clock) -> Proof:
    """Examine the box now, and keep the outcome.

    Raises:
        VantageError: as ``examine``; SCRATCH_UNAVAILABLE, the outcome cannot be kept.
    """
    executor = _executor(config)
    try:
        await executor.clean_up()  # of an examination that was killed
        proof = Proof(await _key(executor, config, image), clock.now(), await examine(executor, config, image))
    finally:
        await executor.close()
    try:
        await asyncio.to_thread(_save, config.data_dir / FILE, proof)
    except OSError as problem:
        raise error(
            Reason.SCRATCH_UNAVAILABLE, f"cannot write to {config.data_dir}: {problem.strerror}: look at the disk"
        ) from problem
    return proof


async def known(config: NodeConfig, image: str) -> Proof | None:
    """The proof that was kept, if nothing has changed since.

    Raises:
        RefusedError: IMAGE_NOT_FOUND.
        UnavailableError: EXECUTOR_UNAVAILABLE.
    """
    proof = await asyncio.to_thread(_load, config.data_dir / FILE)
    if proof is None:
        return None
    executor = _executor(config)
    try:
        return proof if proof.key == await _key(executor, config, image) else None
    finally:
        await executor.close()


async def before_start(config: NodeConfig, clock: Clock, say: Callable[[str], None]) -> None:
    """In production mode, see to it that the box holds; otherwise say what is known of it. For the docker executor.

    Raises:
        ConfigurationError: SANDBOX_NOT_HELD.
        VantageError: in production mode, as ``prove``.
    """
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    image = config.docker.probe_image
    if not config.production:
        try:
            proof = await known(config, image)
        except VantageError:  # only a hint depends on it; what is wrong with the engine is found out elsewhere
            proof = None
        if proof is None:
            say("the sandbox has not been proved on this engine: run 'vantage node doctor'")
        elif proof.missed:
            say(f"the sandbox does NOT hold: {_names(proof)}: run 'vantage node doctor'")
        return
    proof = await known(config, image) or await prove(config, image, clock)
    if proof.missed:
        raise error(
            Reason.SANDBOX_NOT_HELD,
            f"the sandbox does not hold, so a node in production mode does not start: {_names(proof)}: run 'vantage "
            "node doctor' to see what was tried",
        )
    say(f"sandbox: all {len(proof.findings)} protections held on {proof.time:%Y-%m-%d %H:%M} UTC")


def _names(proof: Proof) -> str:
    return ", ".join(each.check for each in proof.missed)


def _executor(config: NodeConfig) -> DockerExecutor:
    # Containers of its own: those of a node that runs are not touched.
    return DockerExecutor(config.docker.host, config.data_dir / "doctor", slots=2)


async def _key(executor: DockerExecutor, config: NodeConfig, image: str) -> str:
    engine, (image_id, _facts) = await executor.engine(), await executor.image(image)
    parts = [
        importlib.metadata.version("vantage"),
        json.dumps([asdict(engine), image_id]),
        config.docker.model_dump_json(),
        config.limits.model_dump_json(),
        await asyncio.to_thread(_program),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _program() -> str:
    """What is asked of the engine and what is tried: a new version proves anew."""
    return inspect.getsource(sandbox) + sandbox.SECCOMP.read_text() + inspect.getsource(probe)


def _save(path: Path, proof: Proof) -> None:
    document = {
        "key": proof.key,
        "time": proof.time.isoformat(),
        "findings": [asdict(each) for each in proof.findings],
    }
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file, indent=1)
    new.replace(path)


def _load(path: Path) -> Proof | None:
    """None for a file that is not there or that nobody can make sense of: then it is proved anew."""
    try:
        document = json.loads(path.read_text())
        findings = tuple(Finding(**each) for each in document["findings"])
        proof = Proof(str(document["key"]), datetime.fromisoformat(document["time"]), findings)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return proof if {each.check for each in findings} == set(PROTECTIONS) else None
