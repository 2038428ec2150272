"""Chooses the parts of a node that depend on its executor. Libraries of an executor are imported when it is used."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from vantage.common.errors import Reason, error
from vantage.node.agent import Parts
from vantage.node.config import NodeConfig
from vantage.node.door import RunCallbacks, RunContext
from vantage.node.executor.process import ProcessExecutor
from vantage.node.sources import ModuleSource


def assemble(config: NodeConfig) -> Parts:
    """The parts that a configuration asks for.

    Raises:
        ConfigurationError: the executor is not allowed.
    """
    if config.executor == "process":
        executor = ProcessExecutor(allow_unsandboxed=config.allow_unsandboxed)
        return Parts(ModuleSource(config.process), executor, serve_local_api)
    raise error(Reason.EXECUTOR_UNAVAILABLE, "the docker executor is not part of this installation")


def serve_local_api(context: RunContext, callbacks: RunCallbacks, directory: Path) -> AbstractAsyncContextManager[Path]:
    """Serve the local API of a run on a socket in ``directory``."""
    raise error(Reason.EXECUTOR_UNAVAILABLE, "the local API is not part of this installation")
