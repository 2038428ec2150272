"""Configuration of a node: one YAML file, checked as a whole before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from vantage.common import names
from vantage.common.errors import Reason, VantageError, error
from vantage.common.rpc import normalize_fingerprint, split_target
from vantage.node.datasets.sections import DatasetSection
from vantage.node.egress.sections import EgressRule
from vantage.node.fields import Bytes, NodeName, OrganizationName, Seconds, Section
from vantage.node.image_sections import ImageRule, KeySection, RevokedSection, RuleUser, misfits, with_files
from vantage.node.registry_section import RegistrySection
from vantage.node.yaml_source import YamlSource


class ServerSection(Section):
    """Where the server is and how it is recognised (by fingerprint, by authority, or by those of the system), and
    whether the session is a stream or unary calls; ``auto`` takes unary calls where streams do not live."""

    address: str
    fingerprint: str | None = None
    ca: Path | None = None
    tls: bool = True
    mtls: bool = False
    transport: Literal["auto", "stream", "sync"] = "auto"

    @model_validator(mode="after")
    def _one_trust(self) -> ServerSection:
        try:
            split_target(self.address)
            if self.fingerprint is not None:
                normalize_fingerprint(self.fingerprint)
        except VantageError as problem:
            raise ValueError(problem.message) from None
        if self.fingerprint is not None and self.ca is not None:
            raise ValueError("give either fingerprint or ca, not both")
        if not self.tls and (self.fingerprint is not None or self.ca is not None):
            raise ValueError("tls: false contradicts fingerprint and ca: remove one")
        if not self.tls and self.mtls:
            raise ValueError("tls: false contradicts mtls: true: remove one")
        return self


class IdentitySection(Section):
    """Who the node is: its organization's name, its own, and the files that prove it."""

    organization: OrganizationName
    node: str
    key: Path = Path("node-key.pem")
    certificate: Path = Path("node-cert.pem")
    passphrase_file: Path | None = None

    @property
    def name(self) -> str:
        """Resource name of the node."""
        return f"{self.organization}/nodes/{self.node}"

    @model_validator(mode="after")
    def _valid_name(self) -> IdentitySection:
        if not names.is_valid(self.name, "organizations/nodes"):
            raise ValueError("node must have 2 to 40 lower-case letters, digits and hyphens, e.g. clara-1")
        return self


class ReleaseRule(Section):
    """What must hold before anything of a run leaves. Of several rules that fit a run, all count."""

    repository: str = Field(default="**", min_length=1)
    functions: tuple[str, ...] | None = None
    datasets: frozenset[str] | None = None
    max_result_bytes: Bytes | None = None
    media_types: tuple[str, ...] | None = None
    columns: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    counts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    minimum_count: int | None = Field(default=None, ge=2)
    small_counts: Literal["refuse", "suppress"] = "refuse"
    approval: Literal["none", "first_run", "every_result"] = "none"

    @model_validator(mode="after")
    def _complete(self) -> ReleaseRule:
        if bool(self.counts) != (self.minimum_count is not None):
            raise ValueError("counts says where the numbers are, minimum_count how large they must be: give both")
        rules = (self.max_result_bytes, self.media_types, self.columns, self.minimum_count)
        if self.approval == "none" and all(each is None for each in rules):
            raise ValueError("the rule demands nothing: add e.g. counts and minimum_count, columns, or approval")
        return self


class PolicySection(Section):
    """What the data owner allows. Nothing runs until a rule for images is added."""

    keys: dict[str, KeySection] = Field(default_factory=dict, max_length=100)
    images: tuple[ImageRule, ...] = ()
    revoked: RevokedSection = RevokedSection()
    release: tuple[ReleaseRule, ...] = Field(default=(), max_length=1000)
    organizations: tuple[OrganizationName, ...] | None = None
    users: tuple[RuleUser, ...] | None = None
    nodes: tuple[NodeName, ...] | None = None
    allow_unsigned: bool = False
    allow_logs: bool = False
    allow_progress: bool = True
    allow_messages: bool = True
    peers: bool | tuple[OrganizationName, ...] = False
    peer_authorities: dict[OrganizationName, Path] = Field(default_factory=dict)
    pin_peer_authorities: bool = False
    egress: tuple[EgressRule, ...] = ()

    @property
    def asks_people(self) -> bool:
        """Whether a run may have to wait for somebody."""
        return any(rule.approval != "none" for rule in self.release)


class TrustSection(Section):
    """Whether an organization's authorities are believed when they are first heard of, or when the admin said so."""

    first_use: bool = False


class LimitsSection(Section):
    """What one run may use."""

    memory: Bytes = 2 * 1024**3
    cpus: float = Field(default=1.0, gt=0, le=1024)
    pids: int = Field(default=256, ge=16)
    scratch: Bytes = 1024**3
    max_runtime: Seconds = 24 * 3600
    grace: Annotated[Seconds, Field(le=600)] = 10
    max_result_bytes: Bytes = 64 * 1024**2
    max_input_bytes: Bytes = 4 * 1024**3
    max_staged_bytes: Bytes = 4 * 1024**3
    max_log_lines: int = Field(default=10_000, ge=0)
    max_image_size: Bytes = 20 * 1024**3
    max_peer_channels: int = Field(default=128, ge=1, le=10_000)
    max_connections: int = Field(default=64, ge=1, le=1_000)


class CapacitySection(Section):
    """What all runs together may take of the machine; what is left out is all that it has. GPUs: ``docker.gpus``."""

    cpus: float | None = Field(default=None, gt=0, le=100_000)
    memory: Bytes | None = None


class DockerSection(Section):
    """Which engine runs the containers, in which image it is examined (any with python3), which GPUs it may lend."""

    host: str = "unix:///var/run/docker.sock"
    probe_image: str = "vantage/algorithm-base:latest"
    gpus: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9:._-]{1,100}$")], ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> DockerSection:
        if len(set(self.gpus)) != len(self.gpus):
            raise ValueError("gpus names a device twice: each is lent to one run at a time")
        return self


class ProcessSection(Section):
    """Python modules that stand in for images of a repository, for development."""

    modules: dict[str, str] = Field(default_factory=dict)


class NodeConfig(Section):
    """All of it. Paths are absolute after ``load``."""

    server: ServerSection
    identity: IdentitySection
    data_dir: Path
    datasets: tuple[DatasetSection, ...] = ()
    policy: PolicySection = PolicySection()
    trust: TrustSection = TrustSection()
    limits: LimitsSection = LimitsSection()
    slots: int = Field(default=2, ge=1, le=1000)
    queue: int = Field(default=4, ge=0, le=100)
    capacity: CapacitySection = CapacitySection()
    executor: Literal["docker", "process"] = "docker"
    on_stop: Literal["drain", "leave"] = "drain"
    allow_unsandboxed: bool = False
    production: bool = False
    registries: tuple[RegistrySection, ...] = ()
    docker: DockerSection = DockerSection()
    process: ProcessSection = ProcessSection()

    @model_validator(mode="after")
    def _consistent(self) -> NodeConfig:
        if self.executor == "process" and not self.allow_unsandboxed:
            raise ValueError(
                "executor: process runs code without any sandbox: use docker, or, on a machine without real data, "
                "set allow_unsandboxed: true"
            )
        addresses = [each.address for each in self.registries]
        if len(set(addresses)) != len(addresses):
            raise ValueError("two entries of registries have the same address: leave one")
        if self.production and self.executor != "docker":
            raise ValueError("production: true needs a sandbox: executor: docker")
        offered = {each.name for each in self.datasets}
        for rule in self.policy.release:
            if unknown := sorted((rule.datasets or set()) - offered):
                raise ValueError(f"policy.release speaks of a dataset that there is not: {', '.join(unknown)}")
        if self.executor == "process" and self.on_stop == "leave":
            raise ValueError("on_stop: leave needs containers, which outlive the node: use executor: docker")
        seen: set[str] = set()
        for dataset in self.datasets:
            if dataset.name in seen:
                raise ValueError(f"two datasets have the name {dataset.name!r}: rename one")
            seen.add(dataset.name)
        return self

    def dataset(self, name: str) -> DatasetSection | None:
        """The dataset of this name."""
        return next((each for each in self.datasets if each.name == name), None)


def load(path: Path) -> NodeConfig:
    """Read and check a configuration; relative paths count from the file's directory.

    Raises:
        ConfigurationError: with file:line, field and what is allowed, one line per problem.
    """
    source = YamlSource.read(path)
    base = path.resolve().parent
    config = _absolute(source.parse(NodeConfig), base)
    declared = config.policy.keys
    keys = with_files(declared, config.policy.images, base)
    config = config.model_copy(update={"policy": config.policy.model_copy(update={"keys": keys})})
    problems = [
        f"{source.place(('datasets', index, field))}: datasets.{index}.{field}: there is no {kind} {path}"
        for index, dataset in enumerate(config.datasets)
        for field, kind, path in dataset.missing()
    ]
    problems += [
        f"{source.place(('policy', *place))}: {'.'.join(map(str, ('policy', *place)))}: {what}"
        for place, what in misfits(declared, keys, config.policy.images)
    ]
    problems += [
        f"{source.place(('policy', 'peer_authorities', key))}: policy.peer_authorities: there is no file {path}"
        for key, path in config.policy.peer_authorities.items()
        if not path.is_file()
    ]
    problems += [
        f"{source.place(('registries', index, field))}: registries.{index}.{field}: there is no file {path}"
        for index, registry in enumerate(config.registries)
        for field, path in (
            ("password_file", registry.password_file),
            ("ca", registry.ca),
            ("archive", registry.archive),
        )
        if path is not None and not path.is_file()
    ]
    if config.server.ca is not None and not config.server.ca.is_file():
        problems.append(f"{source.place(('server', 'ca'))}: server.ca: there is no file {config.server.ca}")
    if problems:
        raise error(Reason.CONFIGURATION_INVALID, "\n".join(problems), path=str(path))
    return config


def _absolute(config: NodeConfig, base: Path) -> NodeConfig:
    def fix(model: BaseModel) -> dict[str, object]:
        changed: dict[str, object] = {}
        for name in type(model).model_fields:
            changed[name] = _fix(getattr(model, name))
        return changed

    def _fix(value: object) -> object:
        if isinstance(value, Path):
            return base / value.expanduser()
        if isinstance(value, BaseModel):
            return value.model_copy(update=fix(value))
        if isinstance(value, tuple):
            return tuple(_fix(each) for each in value)
        if isinstance(value, dict):
            return {key: _fix(each) for key, each in value.items()}
        return value

    return config.model_copy(update=fix(config))
