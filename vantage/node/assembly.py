"""Chooses the parts of a node that depend on its executor. Libraries of an executor are imported when it is used."""

from __future__ import annotations

from vantage.common.errors import Reason, error
from vantage.node.agent import Parts
from vantage.node.config import NodeConfig
from vantage.node.executor.process import ProcessExecutor
from vantage.node.local_api import serve
from vantage.node.sources import ModuleSource


def assemble(config: NodeConfig) -> Parts:
    """The parts that a configuration asks for.

    Raises:
        ConfigurationError: the executor is not allowed.
    """
    if config.executor == "process":
        executor = ProcessExecutor(allow_unsandboxed=config.allow_unsandboxed)
        return Parts(ModuleSource(config.process), executor, serve)
    raise error(Reason.EXECUTOR_UNAVAILABLE, "the docker executor is not part of this installation")
