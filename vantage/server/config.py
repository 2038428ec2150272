"""The server's configuration: ``server.yaml`` in its data directory."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vantage.common.errors import Reason, error
from vantage.server.relay.directory import RelayEntry
from vantage.server.relay.limits import RelayLimits

FILE = "server.yaml"


class ServerConfig(BaseModel):
    """Settings of a server; each has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str = "127.0.0.1:7600"
    hosts: tuple[str, ...] = ()
    max_inline_payload_bytes: int = Field(default=1024 * 1024, ge=1024, le=4 * 1024 * 1024)
    max_payload_bytes: int = Field(default=4 * 1024**3, ge=1024 * 1024)
    heartbeat_seconds: int = Field(default=10, ge=1, le=300)
    lease_seconds: int = Field(default=30, ge=3, le=3600)
    embedded_relay: bool = True
    relay_limits: RelayLimits = RelayLimits(drain_seconds=0)
    relays: tuple[RelayEntry, ...] = ()
    stop_grace_seconds: float = Field(default=5, ge=0, le=300)
    trial: bool = False
    """One person plays everybody: root users answer invitations for organizations. Never for real data."""


def load_config(data: Path) -> ServerConfig:
    """Read the configuration.

    Raises:
        ConfigurationError: with the field and what is wrong with it.
    """
    path = data / FILE
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise error(
            Reason.CONFIGURATION_INVALID, f"{data} is not a server's data directory: run 'vantage server init' first"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise error(Reason.CONFIGURATION_INVALID, f"{path} cannot be read: {problem}") from problem
    try:
        return ServerConfig.model_validate(content or {})
    except ValidationError as problem:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in problem.errors()]
        raise error(Reason.CONFIGURATION_INVALID, f"{path}: " + "; ".join(lines)) from problem


def save_config(data: Path, config: ServerConfig) -> None:
    """Write the configuration."""
    (data / FILE).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), "utf-8")
