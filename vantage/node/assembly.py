"""Chooses the parts of a node that depend on its executor. Libraries of an executor are imported when it is used."""

from __future__ import annotations

from vantage.node.agent import Parts
from vantage.node.config import NodeConfig
from vantage.node.local_api import serve


def assemble(config: NodeConfig) -> Parts:
    """The parts that a configuration asks for.

    Raises:
        ConfigurationError: the executor is not allowed, or a key is not usable.
        UnavailableError: EXECUTOR_UNAVAILABLE, the container engine does not answer.
    """
    if config.executor == "process":
        from vantage.node.executor.process import ProcessExecutor
        from vantage.node.sources import ModuleSource

        plain = ProcessExecutor(allow_unsandboxed=config.allow_unsandboxed)
        return Parts(ModuleSource(config.process), plain, serve)
    from vantage.node.executor.docker import DockerExecutor
    from vantage.node.images.source import ImageSource
    from vantage.node.images.tokens import ServerTokens

    tokens = ServerTokens()
    source = ImageSource(config, tokens)
    engine = config.docker
    executor = DockerExecutor(engine.host, config.data_dir, config.slots, engine.gpus, config.limits.grace)
    return Parts(source, executor, serve, tokens.through)
