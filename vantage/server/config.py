"""The server's configuration: ``server.yaml`` in its data directory."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vantage.common import names
from vantage.common.errors import Reason, error
from vantage.common.image_reference import is_registry
from vantage.common.web import is_web_address
from vantage.server.domain.contents import Quota
from vantage.server.domain.identity_tokens import ALGORITHMS
from vantage.server.relay.directory import RelayEntry
from vantage.server.relay.limits import RelayLimits

FILE = "server.yaml"


class IdentityProviderConfig(BaseModel):
    """An OpenID Connect provider at which users may log in.

    Attributes:
        issuer: its issuer identifier, exactly as its tokens carry it.
        client_id: of vantage's clients there, a public client without secret.
        audiences: what its ID tokens may be meant for; the client id unless said otherwise.
        scopes: what clients ask for.
        algorithms: signatures that are accepted.
        require_nonce: whether ID tokens must carry the nonce of their log-in. Some providers leave it out in the device
            flow; without it a token still counts once, and only when it was issued after its log-in began.
        claim: claim that names users at their first log-in; afterwards the subject counts.
        claim_users: value of that claim -> login name; nobody else is mapped.
        ca: PEM file with the authorities of the provider's certificate, relative to the data directory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(max_length=255)
    client_id: str = Field(min_length=1, max_length=255)
    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ("openid",)
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "EdDSA")
    require_nonce: bool = True
    claim: str = ""
    claim_users: dict[str, str] = {}
    ca: Path | None = None

    @field_validator("issuer")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if not is_web_address(value):
            raise ValueError("must be an https address (http on this machine only)")
        return value

    @field_validator("algorithms")
    @classmethod
    def _only_signatures(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(value) - set(ALGORITHMS)
        if unknown or not value:
            raise ValueError(f"must be some of {', '.join(ALGORITHMS)}")
        return value

    @field_validator("claim_users")
    @classmethod
    def _login_names(cls, value: dict[str, str]) -> dict[str, str]:
        for user in value.values():
            if not names.is_valid(f"users/{user}", "users"):
                raise ValueError(f"{user!r} is no login name")
        return value

    @model_validator(mode="after")
    def _claim_with_users(self) -> IdentityProviderConfig:
        if bool(self.claim) != bool(self.claim_users):
            raise ValueError("claim and claim_users go together: only those who are listed are mapped")
        return self


class ObjectStoreConfig(BaseModel):
    """A bucket of S3, or of what speaks its protocol, for payloads.

    Attributes:
        endpoint: address of the service.
        bucket: its name there; it must exist.
        region: as the service wants it.
        prefix: what the names of all objects begin with, for a bucket that is shared.
        credentials: file with ``aws_access_key_id`` and ``aws_secret_access_key``, mode 0600, relative to the data
            directory; without it the environment has them in capitals.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str = Field(max_length=255)
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,62}$")
    region: str = Field(default="us-east-1", min_length=1, max_length=63)
    prefix: str = Field(default="", pattern=r"^([A-Za-z0-9._-]+/)*$", max_length=255)
    credentials: Path | None = None

    @field_validator("endpoint")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if not is_web_address(value):
            raise ValueError("must be an https address (http on this machine only)")
        return value


class RegistryEntry(BaseModel):
    """A registry that trusts the tokens of this server (``auth: token``), for nodes to pull from.

    Attributes:
        address: ``HOST`` or ``HOST:PORT``, as images are named.
        repositories: which of its repositories: patterns of paths, ``*`` within a segment and ``**`` for any.
        service: what the registry calls itself (``auth.token.service``); its address unless given.
        issuer: what the registry knows this server as (``auth.token.issuer``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    repositories: tuple[str, ...] = Field(min_length=1)
    service: str | None = None
    issuer: str = "vantage"

    @field_validator("address")
    @classmethod
    def _host(cls, value: str) -> str:
        if not is_registry(value):
            raise ValueError("must be HOST or HOST:PORT, as images are named")
        return value


class ServerConfig(BaseModel):
    """Settings of a server; each has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str = "127.0.0.1:7600"
    mtls_listen: str | None = None
    """A second port, where whoever connects must show a certificate of an organization."""
    metrics_listen: str | None = None
    """Where Prometheus finds figures, over plain HTTP; nowhere unless given."""
    hosts: tuple[str, ...] = ()
    max_inline_payload_bytes: int = Field(default=1024 * 1024, ge=1024, le=4 * 1024 * 1024)
    max_payload_bytes: int = Field(default=4 * 1024**3, ge=1024 * 1024)
    payload_quota_bytes: int | None = Field(default=None, ge=1024 * 1024)
    """What all payloads of an organization may have together; any number unless given."""
    payload_quota_count: int = Field(default=Quota().count, ge=100)
    """How many payloads an organization may have."""
    payload_grace_seconds: int = Field(default=7 * 86_400, ge=60)
    """How long an upload that no task refers to, or that was not finished, is kept."""
    object_store: ObjectStoreConfig | None = None
    """Where payloads lie; in the data directory unless given."""
    heartbeat_seconds: int = Field(default=10, ge=1, le=300)
    lease_seconds: int = Field(default=30, ge=3, le=3600)
    embedded_relay: bool = True
    relay_limits: RelayLimits = RelayLimits(drain_seconds=0)
    relays: tuple[RelayEntry, ...] = ()
    stop_grace_seconds: float = Field(default=5, ge=0, le=300)
    trial: bool = False
    """One person plays everybody: root users answer invitations for organizations. Never for real data."""
    identity_provider: IdentityProviderConfig | None = None
    registries: tuple[RegistryEntry, ...] = ()
    """Registries from which nodes pull with tokens of this server."""


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
