"""The relay as a program of its own: configuration, TLS, health, drain."""

from __future__ import annotations

from pathlib import Path

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vantage.common.clock import Clock, SystemClock
from vantage.common.errors import Reason, error
from vantage.common.rpc import SERVER_WINDOW, fixed_window
from vantage.server import certificate
from vantage.server.health import HealthServicer
from vantage.server.metrics import Metrics
from vantage.server.relay.limits import RelayLimits
from vantage.server.relay.pairs import MAX_MESSAGE, Pairs
from vantage.server.relay.servicer import SERVICE, RelayServicer
from vantage.server.relay.tickets import TicketVerifier, read_key_set

FILE = "relay.yaml"
KEYS_FILE = "relay-keys.json"

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    *fixed_window(SERVER_WINDOW),
    ("grpc.so_reuseport", 0),
    # A node that is gone without a word is noticed by its silence.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class RelayConfig(BaseModel):
    """Settings of a relay: ``relay.yaml`` in its directory, next to ``relay-keys.json`` and the TLS files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}[a-z0-9]$")
    listen: str = "127.0.0.1:7700"
    metrics_listen: str | None = None
    limits: RelayLimits = RelayLimits()


def initialize(directory: Path, config: RelayConfig, keys: str, hosts: tuple[str, ...]) -> None:
    """Make a relay's directory.

    Raises:
        ConfigurationError: there is a relay in it already, or the keys are not usable.
    """
    if (directory / FILE).exists():
        raise error(Reason.CONFIGURATION_INVALID, f"{directory} holds a relay already: start it, or choose another")
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    for name in (certificate.KEY_FILE, certificate.CERTIFICATE_FILE):
        (directory / name).unlink(missing_ok=True)  # of an attempt that did not end
    (directory / KEYS_FILE).write_text(keys, "utf-8")
    read_key_set(directory / KEYS_FILE)
    certificate.create_certificate(directory, hosts)
    (directory / FILE).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), "utf-8")


def load_config(directory: Path) -> RelayConfig:
    """Read the configuration.

    Raises:
        ConfigurationError: with the field and what is wrong with it.
    """
    path = directory / FILE
    try:
        return RelayConfig.model_validate(yaml.safe_load(path.read_text("utf-8")) or {})
    except FileNotFoundError:
        raise error(
            Reason.CONFIGURATION_INVALID, f"{directory} is not a relay's directory: run 'vantage relay init' first"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise error(Reason.CONFIGURATION_INVALID, f"{path} cannot be read: {problem}") from problem
    except ValidationError as problem:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in problem.errors()]
        raise error(Reason.CONFIGURATION_INVALID, f"{path}: " + "; ".join(lines)) from problem


class Relay:
    """A relay that listens. ``start``, then ``stop`` once.

    Args:
        directory: made by ``initialize``.
        listen: address instead of the configured one.
        tls: whether it speaks TLS; without it every byte is still sealed from node to node.
        clock: the time.
    """

    def __init__(
        self, directory: Path, *, listen: str | None = None, tls: bool = True, clock: Clock | None = None
    ) -> None:
        self.config = load_config(directory)
        self.address = ""
        self._keys = read_key_set(directory / KEYS_FILE)
        self._directory = directory
        self._listen = listen or self.config.listen
        self._tls = tls
        self._clock = clock or SystemClock()
        self.metrics = None if self.config.metrics_listen is None else Metrics(self.config.metrics_listen)

    async def start(self) -> None:
        """Listen; ``address`` is then the real one.

        Raises:
            ConfigurationError: the address is in use.
        """
        self.pairs = Pairs(self.config.limits)
        verifier = TicketVerifier(self.config.name, self._keys, self._clock)
        self._server = grpc.aio.server(options=CHANNEL_OPTIONS)
        self._server.add_generic_rpc_handlers((RelayServicer(self.pairs, verifier, self._clock).handlers(),))
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            if self._tls:
                pair = (
                    (self._directory / certificate.KEY_FILE).read_bytes(),
                    (self._directory / certificate.CERTIFICATE_FILE).read_bytes(),
                )
                port = self._server.add_secure_port(self._listen, grpc.ssl_server_credentials([pair]))
            else:
                port = self._server.add_insecure_port(self._listen)
        except RuntimeError:
            raise error(Reason.CONFIGURATION_INVALID, f"cannot listen on {self._listen}: is the port in use?") from None
        self.address = f"{self._listen.rpartition(':')[0]}:{port}"
        if self.metrics is not None:
            self.metrics.add_relay(self.pairs.counters)
            self.metrics.start()
        await self._server.start()
        for name in ("", SERVICE.full_name):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Take no more, let pairs end, break off the rest; their nodes go on over another relay."""
        await self._health.enter_graceful_shutdown()
        await self.pairs.drain()
        await self._server.stop(1)
        if self.metrics is not None:
            await self.metrics.stop()
