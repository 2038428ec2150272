"""``vantage node``: create, check and run a node."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import click

if TYPE_CHECKING:
    from vantage.common.errors import VantageError
    from vantage.node.config import NodeConfig
    from vantage.node.image_sections import ImageRule

EXIT_USAGE = 2
EXIT_NOT_ADMITTED = 3
EXIT_FAILURE = 1

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("node.yaml"),
    show_default=True,
    help="The node's configuration.",
)

_TEMPLATE = """\
# Configuration of a vantage node. Relative paths count from this file. Check it with: vantage node check

server:
  address: {address}
  # How to recognise the server: its fingerprint ('vantage server fingerprint'), or the certificate of its authority.
{trust}

identity:
  organization: {organization}
  node: {node}
  key: node-key.pem
  certificate: node-cert.pem

# State of the node: journal, sockets and temporary files of runs.
data_dir: data

# What algorithms may read: csv, parquet, excel, folder, postgresql, omop, sql or sparql (docs/datasets.md). Without
# 'collaborations', tasks of all that the node serves may.
datasets: []
#  - name: patients
#    path: patients.csv
#    format: csv
#    collaborations: [my-study]

# What you allow. Nothing runs until there is a rule for images.
policy:
  keys: {{}}                         # cosign public keys by name, each with role and end if you like:
  #  author: {{file: author.pub, role: author, expires: 2030-01-01}}
  images: []
  #  - repository: registry.example.org/algorithms/*
  #    keys: [author]              # names, or files
  #    threshold: 1                # how many of them must have signed
  #    functions: [summary]        # leave out to allow all that the image declares
  #    users: [clara/alice]        # who may run it; leave out to allow all who may ask. More: docs/image-trust.md
  release: []                      # what must hold before something leaves
  #  - datasets: [patients]
  #    counts: ["**.n"]            # where numbers of persons stand in results
  #    minimum_count: 10
  #    approval: first_run         # or every_result; see 'vantage node approvals'
  # organizations: [clara]         # who may ask; leave out to allow all of the collaboration
  # users: [clara/alice]           # alone; alice: whoever is called so, in any organization
  # nodes: []                      # nodes whose running algorithms may ask; needed when users is set
  allow_unsigned: false            # true: also run tasks that nobody has signed; for development
  allow_logs: false                # what algorithms print may contain data
  allow_progress: true
  allow_messages: true             # texts that authors of algorithms wrote
  peers: false                     # true, or organizations whose nodes algorithms here may talk to
  # peer_authorities: {{hilda: hilda-ca.pem}}  # who vouches for their nodes; or trust what the server tells first:
  # pin_peer_authorities: true
  egress: []                       # hosts that algorithms may be connected with
  #  - {{host: api.example.org, port: 443, tls_server_name: api.example.org, images: registry.example.org/algorithms/*}}

# Whose certificates count: see 'vantage node trust list'. With first_use, the first authority that the server names for
# an organization is believed without anybody comparing its fingerprint.
trust:
  first_use: false

limits:
  memory: 2GiB
  cpus: 1
  pids: 256
  scratch: 1GiB
  max_runtime: 24h
  grace: 10s                       # between SIGTERM and SIGKILL when a run is stopped
  max_result_bytes: 64MiB
  max_image_size: 20GiB            # as transported, and unpacked
  max_input_bytes: 4GiB            # files that come with a task; one answer to a subtask
  max_staged_bytes: 4GiB           # arguments of its subtasks that a run has waiting at the node
  max_log_lines: 10000

# How many algorithms run at once, and how many more the node takes to fetch their images meanwhile.
slots: 2
queue: 4
# What all of them together may take; a run takes its limits and waits for room. Left out: all that the machine has.
# capacity: {{cpus: 4, memory: 16GiB}}
executor: docker

# What the first SIGTERM means. drain: finish what runs, however long that takes; a second one cancels it.
# leave: end at once; containers run on, and the next start goes on with them.
on_stop: drain

# true: start only when 'vantage node doctor' finds that every protection of the sandbox holds. For real data.
production: false
"""


class _NodeGroup(click.Group):
    """Commands of this module, and those of the organization's side and the server's, which come with the client."""

    _ELSEWHERE: ClassVar = {
        "trust": ("vantage.node.trust_cli", "trust"),
        "policy": ("vantage.node.policy_cli", "policy"),
        "dataset": ("vantage.node.dataset_cli", "dataset"),
        "approvals": ("vantage.node.approvals_cli", "approvals"),
        "doctor": ("vantage.node.doctor_cli", "doctor"),
        "status": ("vantage.node.status_cli", "status"),
        "issue": ("vantage.client.cli.certificates", "issue_node"),
        "create": ("vantage.client.cli.nodes", "create_node"),
        "get": ("vantage.client.cli.nodes", "get_node"),
        "list": ("vantage.client.cli.nodes", "list_nodes"),
        "update": ("vantage.client.cli.nodes", "update_node"),
        "delete": ("vantage.client.cli.nodes", "delete_node"),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = set(super().list_commands(ctx))
        found.update(name for name, (module, _attribute) in self._ELSEWHERE.items() if _exists(module))
        return sorted(found)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._ELSEWHERE and _exists(self._ELSEWHERE[cmd_name][0]):
            module, attribute = self._ELSEWHERE[cmd_name]
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, cmd_name)


def _exists(module: str) -> bool:
    """Whether a module is installed, found out without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@click.group(cls=_NodeGroup)
def node() -> None:
    """Run a node beside a data set, and manage nodes."""


@node.command(
    epilog="\b\nExample:\n"
    "  vantage node init /srv/node --server vantage.example.org:7600 --organization clara --node clara-1"
)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--server", "address", required=True, metavar="HOST:PORT", help="Address of the server.")
@click.option("--organization", required=True, help="Organization that the node belongs to.")
@click.option("--node", "name", required=True, help="Name of the node within its organization, e.g. clara-1.")
@click.option("--fingerprint", help="Fingerprint of the server's certificate.")
def init(directory: Path, address: str, organization: str, name: str, fingerprint: str | None) -> None:
    """Create a configuration, a key and a certificate signing request."""
    from vantage.common.errors import VantageError
    from vantage.node import config, identity
    from vantage.node.yaml_source import YamlSource

    path = directory / "node.yaml"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        trust = f"  fingerprint: {fingerprint}" if fingerprint else "  # fingerprint: sha256:..."
        text = _TEMPLATE.format(address=address, organization=organization, node=name, trust=trust)
        try:
            with path.open("x") as file:
                file.write(text)
        except FileExistsError:
            raise click.ClickException(f"{path} exists: choose another directory, or edit it") from None
        try:
            YamlSource.read(path).parse(config.NodeConfig)
            request = identity.create(config.load(path).identity)
        except VantageError:
            path.unlink()  # nothing half-made is left
            raise
    except VantageError as problem:
        _fail(problem)
    except OSError as problem:
        raise click.ClickException(f"cannot write to {directory}: {problem.strerror}") from None
    click.echo(f"created {path}, {directory / 'node-key.pem'} and {request}")
    click.echo("next:")
    click.echo(f"  1. send {request} to the admin of {organization}, who runs: vantage node issue {request.name}")
    click.echo(f"  2. put the answer at {directory / 'node-cert.pem'}")
    click.echo(f"  3. add datasets and the keys of image authors to {path}")
    click.echo(f"  4. vantage node start --config {path}")


@node.command(epilog="\b\nExample:\n  vantage node check --config /srv/node/node.yaml")
@_CONFIG
def check(config_path: Path) -> None:
    """Check a configuration and say what the node will serve."""
    from vantage.common.clock import SystemClock
    from vantage.common.errors import VantageError
    from vantage.node import config
    from vantage.node.identity import Identity
    from vantage.node.images.rules import load_policy

    try:
        loaded = config.load(config_path)
        identity = Identity.load(loaded.identity, SystemClock())
        keys = load_policy(loaded.policy).keys
        _check_datasets(loaded)
    except VantageError as problem:
        _fail(problem)
    expires = identity.chain[0].not_valid_after_utc
    click.echo(f"{identity.name} at {loaded.server.address}, certificate valid until {expires:%Y-%m-%d}")
    _describe(loaded)
    for key in keys:
        if key.has_expired(SystemClock().now()):
            click.echo(f"the key {key.name} has expired on {key.expires}: what it signed does not count")


@node.command(epilog="\b\nExample:\n  vantage node renew --config /srv/node/node.yaml")
@_CONFIG
def renew(config_path: Path) -> None:
    """Make the next key and its signing request; the node goes on, and need not be restarted."""
    from vantage.common.errors import VantageError
    from vantage.node import config, renewal

    try:
        section = config.load(config_path).identity
        request = renewal.prepare(section)
    except VantageError as problem:
        _fail(problem)
    click.echo(f"created {renewal.pending(section.key)} and {request}")
    click.echo("next:")
    click.echo(
        f"  1. send {request} to the admin of {section.organization}, who runs: vantage node issue {request.name}"
    )
    click.echo(f"  2. put the answer at {renewal.pending(section.certificate)}")
    click.echo("  3. that is all: the node shows it to the server, and says when it is in use")


def _describe_rule(rule: ImageRule) -> None:
    functions = ", ".join(rule.functions) if rule.functions is not None else "all functions"
    signed = [
        f"signed by {rule.threshold} of {len(rule.keys)} keys",
        *(f"by {count} {role}" for role, count in rule.roles.items()),
        *(f"with {each.type}" for each in rule.attestations),
    ]
    click.echo(f"  {rule.repository}: {functions}, {', '.join(signed)}")
    whom = (*(rule.organizations or ()), *(rule.users or ()))
    limits = [
        *([f"for {', '.join(whom)}"] if whom else []),
        *([f"arguments within bounds: {', '.join(rule.arguments)}"] if rule.arguments else []),
        *([f"until {rule.expires}"] if rule.expires is not None else []),
    ]
    if limits:
        click.echo(f"    only {'; '.join(limits)}")


def _check_datasets(loaded: NodeConfig) -> None:
    """Whether the databases of the datasets can be asked, as far as that is known without asking them.

    Raises:
        ConfigurationError: one line per problem.
    """
    from vantage.common.errors import Reason, error
    from vantage.node.datasets.asking import problems_of

    if problems := problems_of(loaded.datasets):
        raise error(Reason.CONFIGURATION_INVALID, "\n".join(problems))


def _describe(loaded: NodeConfig) -> None:
    from vantage.common.hosts import join_host

    click.echo("datasets:" if loaded.datasets else "datasets: none: algorithms can run, but read nothing")
    for dataset in loaded.datasets:
        whom = ", ".join(dataset.collaborations) if dataset.collaborations is not None else "all collaborations"
        how = f", by {dataset.access}" if dataset.is_service else ""
        click.echo(f"  {dataset.name} ({dataset.format}{how}) for {whom}")
    policy = loaded.policy
    click.echo("images:" if policy.images else "images: none are allowed: add a rule under policy.images")
    for rule in policy.images:
        _describe_rule(rule)
    for registry in loaded.registries:
        click.echo(f"  from {registry.address}: {registry.way}")
    if policy.release:
        from vantage.node.release.terms import describe

        click.echo("what must hold before something leaves:")
        for demand in policy.release:
            click.echo(f"  {describe(demand)}")
    asking = ", ".join(policy.organizations) if policy.organizations is not None else "all of the collaboration"
    click.echo(f"who may ask: {asking}{'; users ' + ', '.join(policy.users) if policy.users is not None else ''}")
    leaves = [
        name
        for name, allowed in (
            ("log lines", policy.allow_logs),
            ("progress", policy.allow_progress),
            ("authors' messages", policy.allow_messages),
        )
        if allowed
    ]
    click.echo(f"what leaves besides results: {', '.join(leaves) or 'nothing'}")
    peers = policy.peers
    whom = "all of the collaboration" if peers is True else ", ".join(peers) if peers else "nobody"
    click.echo(f"whose algorithms may be talked to: {whom}")
    hosts = ", ".join(join_host(each.host, each.port) for each in policy.egress)
    click.echo(f"hosts that may be connected with: {hosts or 'none'}")
    click.echo(f"executor: {loaded.executor}, {loaded.slots} at once")
    if loaded.executor == "docker":
        how = "only when its sandbox holds" if loaded.production else "whatever its sandbox holds (production: false)"
        click.echo(f"starts {how}: see 'vantage node doctor'")


@node.command(epilog="\b\nExample:\n  vantage node start --config /srv/node/node.yaml")
@_CONFIG
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Written when the node is connected.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning")
def start(config_path: Path, ready_file: Path | None, log_level: str) -> None:
    """Run the node. SIGTERM: finish what runs and end; a second one: cancel it. See on_stop in its configuration."""
    import asyncio

    from vantage.common.clock import SystemClock
    from vantage.common.errors import VantageError
    from vantage.node import agent, config
    from vantage.node.assembly import assemble
    from vantage.node.connection import FatalError

    _log_to_stderr(log_level)
    try:
        loaded = config.load(config_path)
        _check_datasets(loaded)
        built = agent.Agent(loaded, assemble(loaded), say=_say)
    except VantageError as problem:
        _fail(problem)

    async def main() -> None:
        agent.handle_signals(built.stop)
        if loaded.executor == "docker":
            from vantage.node.doctor.proof import before_start

            await before_start(loaded, SystemClock(), _say)
        else:
            _say(f"executor: {loaded.executor}: algorithms run WITHOUT ANY SANDBOX, as the user of this process")
        await built.run(ready_file)

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(main())
    except FatalError:
        # The agent has said why.
        sys.exit(EXIT_NOT_ADMITTED)
    except VantageError as problem:
        _fail(problem)
    finally:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
    _say("stopped")


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # not on every platform; the standard loop does the same, slower
        return None
    return uvloop.new_event_loop


def _say(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()


def _log_to_stderr(level: str) -> None:
    import json
    import logging

    class Fields(logging.Formatter):
        """The constant text of a record, then its fields as JSON."""

        standard = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

        def format(self, record: logging.LogRecord) -> str:
            text = super().format(record)
            fields = {key: value for key, value in vars(record).items() if key not in self.standard}
            return f"{text} {json.dumps(fields, default=str)}" if fields else text

    handler = logging.StreamHandler()
    handler.setFormatter(Fields("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _fail(problem: VantageError) -> NoReturn:
    from vantage.common.errors import ConfigurationError

    click.echo(f"Error: {problem.message}", err=True)
    sys.exit(EXIT_USAGE if isinstance(problem, ConfigurationError) else EXIT_FAILURE)
