"""The server, put together."""

from __future__ import annotations

import ipaddress
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
from argon2 import PasswordHasher
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from vantage.api.admin.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    collaboration_service_pb2,
    collaboration_service_pb2_grpc,
    membership_service_pb2,
    membership_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    organization_service_pb2,
    organization_service_pb2_grpc,
    role_service_pb2,
    role_service_pb2_grpc,
    study_service_pb2,
    study_service_pb2_grpc,
    trust_service_pb2,
    trust_service_pb2_grpc,
    user_credential_service_pb2,
    user_credential_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from vantage.api.identity.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    key_service_pb2,
    key_service_pb2_grpc,
)
from vantage.api.node.v1 import (
    node_session_service_pb2,
    node_session_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
)
from vantage.api.payload.v1 import payload_service_pb2
from vantage.api.relay.v1 import relay_broker_service_pb2, relay_service_pb2
from vantage.api.task.v1 import task_service_pb2, task_service_pb2_grpc
from vantage.common import pki
from vantage.common.clock import Clock, SystemClock
from vantage.common.errors import Reason, error
from vantage.common.payload_frames import add_payload_service
from vantage.common.rpc import CHANNEL_OPTIONS, SERVER_WINDOW, fixed_window
from vantage.server import certificate
from vantage.server.config import FILE, ServerConfig, load_config, save_config
from vantage.server.domain import secrets
from vantage.server.domain.contents import Quota
from vantage.server.domain.identity_tokens import Expected, Nonces
from vantage.server.domain.passwords import Passwords
from vantage.server.domain.secrets import Secrets
from vantage.server.domain.session import SessionSettings
from vantage.server.domain.tokens import AccessTokens, new_secret, secret_hash
from vantage.server.events.bus import Bus
from vantage.server.figures import Figures
from vantage.server.health import HealthServicer
from vantage.server.metrics import Metrics
from vantage.server.mutual import MutualTls
from vantage.server.payloads.places import open_store
from vantage.server.registry_certificate import pull_tokens
from vantage.server.relaying import Relaying
from vantage.server.rpc.admin.audit import AuditServicer
from vantage.server.rpc.admin.collaborations import CollaborationServicer, MembershipServicer
from vantage.server.rpc.admin.nodes import NodeServicer
from vantage.server.rpc.admin.organizations import OrganizationServicer
from vantage.server.rpc.admin.roles import RoleServicer
from vantage.server.rpc.admin.studies import StudyServicer
from vantage.server.rpc.admin.users import UserServicer
from vantage.server.rpc.auditing import Auditor
from vantage.server.rpc.auth import AuthServicer
from vantage.server.rpc.credentials import CredentialServicer, UserCredentialServicer
from vantage.server.rpc.interceptors import Gate, rules_of
from vantage.server.rpc.keys import KeyServicer
from vantage.server.rpc.node_session import NodeSessionServicer
from vantage.server.rpc.payloads import PayloadServicer
from vantage.server.rpc.registries import RegistryServicer
from vantage.server.rpc.tasks import TaskServicer
from vantage.server.rpc.trust import TrustServicer
from vantage.server.services.assertions import Assertions
from vantage.server.services.audit import Audit
from vantage.server.services.auth import Auth
from vantage.server.services.collaborations import Collaborations
from vantage.server.services.commits import Commits
from vantage.server.services.credentials import Credentials
from vantage.server.services.directory import Directory
from vantage.server.services.identities import Identities, Provider
from vantage.server.services.keys import Keys
from vantage.server.services.logins import Logins
from vantage.server.services.memberships import Memberships
from vantage.server.services.nodes import Nodes
from vantage.server.services.organizations import Organizations
from vantage.server.services.payload_collection import PayloadCollection
from vantage.server.services.payloads import Payloads
from vantage.server.services.proofs import Proofs
from vantage.server.services.registries import Registries
from vantage.server.services.retries import Retries
from vantage.server.services.roles import Roles
from vantage.server.services.sessions import Sessions
from vantage.server.services.studies import Studies
from vantage.server.services.tasks import Tasks
from vantage.server.services.trust import Trust, TrustVersion
from vantage.server.services.user_credentials import UserCredentials
from vantage.server.services.users import Users
from vantage.server.services.waits import WaitNews, Waits
from vantage.server.storage import credential_store, settings_store
from vantage.server.storage.database import Database, transaction
from vantage.server.storage.migrate import migrate

DATABASE_FILE = "server.db"
TOKEN_KEY_FILE = "token.key"  # noqa: S105  # a file name

SERVICES = tuple(
    each
    for module in (
        auth_service_pb2,
        key_service_pb2,
        credential_service_pb2,
        organization_service_pb2,
        user_service_pb2,
        user_credential_service_pb2,
        collaboration_service_pb2,
        membership_service_pb2,
        study_service_pb2,
        node_service_pb2,
        role_service_pb2,
        audit_service_pb2,
        trust_service_pb2,
        task_service_pb2,
        node_session_service_pb2,
        registry_service_pb2,
        payload_service_pb2,
        relay_broker_service_pb2,
        relay_service_pb2,
    )
    for each in module.DESCRIPTOR.services_by_name.values()
)
"""Every service that the server offers."""


def initialize(data: Path, config: ServerConfig) -> str:
    """Make a new data directory and return the bootstrap token, of which only the hash is kept.

    Raises:
        ConfigurationError: there is a server in it already.
    """
    if (data / FILE).exists():
        raise error(
            Reason.CONFIGURATION_INVALID, f"{data} holds a server already: start it, or choose another directory"
        )
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)
    (data / DATABASE_FILE).unlink(missing_ok=True)  # of an attempt that did not end
    migrate(data / DATABASE_FILE)
    for name in (TOKEN_KEY_FILE, secrets.KEY_FILE, certificate.KEY_FILE, certificate.CERTIFICATE_FILE):
        (data / name).unlink(missing_ok=True)
    pki.write_key(data / TOKEN_KEY_FILE, pki.create_key())
    Secrets.create(data)
    certificate.create_certificate(data, config.hosts)
    token = new_secret()
    with transaction(data / DATABASE_FILE) as connection:
        settings_store.put(connection, settings_store.AUDIENCE, f"vantage:{uuid.uuid4()}")
        settings_store.put(connection, settings_store.BOOTSTRAP_HASH, secret_hash(token).hex())
    save_config(data, config)  # last: this file says that the directory is whole
    return token


@dataclass(frozen=True)
class Listener:
    """Where to listen: ``host:port`` (port 0: any), with TLS or, on loopback only, without."""

    address: str
    tls: bool = True


class Server:
    """A server over a data directory. ``start``, then ``stop`` once."""

    def __init__(
        self, data: Path, listener: Listener, config: ServerConfig, clock: Clock, hasher: PasswordHasher | None
    ) -> None:
        self.data = data
        self.config = config
        self.clock = clock
        self._listener = listener
        self._hasher = hasher
        self.address = ""
        self.mtls_address = ""
        self.metrics = None if config.metrics_listen is None else Metrics(config.metrics_listen)

    async def start(self) -> None:
        """Migrate, take up what a former process left, and listen; ``address`` is then the real one.

        Raises:
            ConfigurationError: address in use, or without TLS beyond loopback.
        """
        host, _, _port = self._listener.address.rpartition(":")
        if not self._listener.tls and not _is_loopback(host):
            raise error(
                Reason.CONFIGURATION_INVALID, f"without TLS the server listens on loopback only, not on {host!r}"
            )
        migrate(self.data / DATABASE_FILE)
        self.database = Database(self.data / DATABASE_FILE)
        self.passwords = Passwords(self._hasher)
        try:
            await self._assemble()
        except BaseException:
            self.passwords.close()
            await self.database.close()
            raise

    async def _assemble(self) -> None:
        config, clock, database = self.config, self.clock, self.database
        audience = await database.read(lambda connection: settings_store.get(connection, settings_store.AUDIENCE))
        if audience is None:
            raise error(Reason.CONFIGURATION_INVALID, f"the database in {self.data} is not whole: run init again")
        tokens = AccessTokens(pki.read_key(self.data / TOKEN_KEY_FILE), audience, clock)
        directory = Directory(database, tokens)
        key = await self._secrets()
        logins = Logins(database, directory, tokens, key, clock)
        proofs = Proofs(database, self.passwords, key, clock)
        auth = Auth(database, directory, logins, proofs, self.passwords, audience, clock)
        assertions = Assertions(database, tokens, logins, audience, clock)
        credentials = Credentials(database, directory, proofs, key, "vantage", clock)
        self.provider = provider = self._provider()
        identities = Identities(database, directory, logins, proofs, Nonces(key), provider, clock)
        user_credentials = UserCredentials(
            database, directory, None if provider is None else provider.expected.issuer, clock
        )
        bus, commits = Bus(), Commits(database)
        inline = config.max_inline_payload_bytes
        settings = SessionSettings(
            heartbeat_seconds=config.heartbeat_seconds, lease_seconds=config.lease_seconds, max_inline_bytes=inline
        )
        self.audit = Audit(database, self.data, clock)
        self.retries = Retries(commits, clock)
        self.sessions = Sessions(
            commits,
            clock,
            bus,
            settings,
            reaffirm=directory.reaffirm,
            trust_version=TrustVersion(database, directory),
        )
        waits = Waits(database, self.sessions)
        self.wait_news = WaitNews(database, bus, clock)
        self.sessions.on_attendance = self.wait_news.changed
        self.tasks = Tasks(commits, clock, bus, waits)
        trust = Trust(database, directory, self.sessions, clock)
        store = open_store(self.data, config.object_store)
        await store.start()
        grace = timedelta(seconds=config.payload_grace_seconds)
        self.payload_collection = PayloadCollection(database, store, clock, grace)
        payloads = Payloads(
            database,
            store,
            self.payload_collection,
            clock,
            config.max_payload_bytes,
            Quota(config.payload_quota_bytes, config.payload_quota_count),
        )

        self.gate = Gate(
            rules_of(SERVICES),
            directory,
            Auditor(self.audit, clock),
            mutual=config.mtls_listen is not None,
            handled=None if self.metrics is None else self.metrics.handled,
        )
        self._server = server = grpc.aio.server(
            interceptors=[self.gate],
            options=[
                *CHANNEL_OPTIONS,
                *fixed_window(SERVER_WINDOW),
                # Otherwise a second server on the same port would share its calls instead of failing.
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        key_service_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(Keys(database, clock)), server)
        auth_service_pb2_grpc.add_AuthServiceServicer_to_server(
            AuthServicer(auth, logins, assertions, identities, config), server
        )
        credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(
            CredentialServicer(credentials, identities, logins), server
        )
        user_credential_service_pb2_grpc.add_UserCredentialServiceServicer_to_server(
            UserCredentialServicer(user_credentials), server
        )
        organization_service_pb2_grpc.add_OrganizationServiceServicer_to_server(
            OrganizationServicer(Organizations(database, directory, clock, trust)), server
        )
        user_service_pb2_grpc.add_UserServiceServicer_to_server(
            UserServicer(Users(database, directory, self.passwords, clock)), server
        )
        collaborations = Collaborations(commits, directory, self.sessions, clock, trial=config.trial)
        collaboration_service_pb2_grpc.add_CollaborationServiceServicer_to_server(
            CollaborationServicer(collaborations), server
        )
        memberships = Memberships(commits, directory, self.sessions, clock, trial=config.trial)
        membership_service_pb2_grpc.add_MembershipServiceServicer_to_server(MembershipServicer(memberships), server)
        study_service_pb2_grpc.add_StudyServiceServicer_to_server(StudyServicer(Studies(database, clock)), server)
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(AuditServicer(self.audit), server)
        node_service_pb2_grpc.add_NodeServiceServicer_to_server(
            NodeServicer(Nodes(database, directory, clock, self.sessions)), server
        )
        role_service_pb2_grpc.add_RoleServiceServicer_to_server(RoleServicer(Roles(database, directory, clock)), server)
        trust_service_pb2_grpc.add_TrustServiceServicer_to_server(TrustServicer(trust), server)
        task_service_pb2_grpc.add_TaskServiceServicer_to_server(
            TaskServicer(self.tasks, self.sessions, waits, inline), server
        )
        self.node_sessions = NodeSessionServicer(self.sessions)
        node_session_service_pb2_grpc.add_NodeSessionServiceServicer_to_server(self.node_sessions, server)
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(
            RegistryServicer(Registries(config.registries, pull_tokens(self.data, clock))), server
        )
        add_payload_service(PayloadServicer(payloads), server)
        self.relaying = Relaying(self.data, config, clock, commits, self.sessions)
        self.relaying.add_to(server)
        self.health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        names = [each.full_name for each in SERVICES]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)

        self.address = self._bind(server)
        if config.mtls_listen is not None:
            mutual = MutualTls(database, directory, self._pair())
            self.mtls_address = _open_port(server, config.mtls_listen, await mutual.credentials(), "mtls_listen")
        if self.metrics is not None:
            self.metrics.add(Figures(database, self.sessions, bus).read)
            if self.relaying.pairs is not None:
                self.metrics.add_relay(self.relaying.pairs.counters)
            self.metrics.start()
        await self.audit.start()
        await self.tasks.start()
        await self.sessions.start()
        await self.retries.start()
        await self.wait_news.start()
        await self.relaying.start()
        await self.payload_collection.start()
        await server.start()
        for name in ("", *names):
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def _provider(self) -> Provider | None:
        config = self.config.identity_provider
        if config is None:
            return None
        from vantage.server.services.provider_keys import ProviderKeys  # here: servers without provider need no HTTP

        authorities = None if config.ca is None else self.data / config.ca
        return Provider(
            Expected(config.issuer, config.audiences or (config.client_id,), config.algorithms, config.require_nonce),
            ProviderKeys(config.issuer, authorities, self.clock),
            config.claim,
            {value: f"users/{user}" for value, user in config.claim_users.items()},
        )

    async def _secrets(self) -> Secrets:
        # Data directories of earlier releases have no such key; where something was sealed with it, it must come back.
        missing = not (self.data / secrets.KEY_FILE).exists()
        if missing and not await self.database.read(credential_store.any_one_time_code):
            return Secrets.create(self.data)
        return Secrets.load(self.data)

    def _bind(self, server: grpc.aio.Server) -> str:
        credentials = grpc.ssl_server_credentials([self._pair()]) if self._listener.tls else None
        return _open_port(server, self._listener.address, credentials, "--listen")

    def _pair(self) -> tuple[bytes, bytes]:
        return (
            (self.data / certificate.KEY_FILE).read_bytes(),
            (self.data / certificate.CERTIFICATE_FILE).read_bytes(),
        )

    async def stop(self) -> None:
        """Say so, let nodes and calls end, and close the database."""
        await self.health.enter_graceful_shutdown()
        if self.metrics is not None:
            await self.metrics.stop()
        await self.relaying.stop()
        await self.retries.stop()
        await self.wait_news.stop()
        await self.sessions.stop()
        await self.tasks.stop()
        await self._server.stop(self.config.stop_grace_seconds)
        await self.node_sessions.stop()
        await self.gate.settle()
        await self.payload_collection.stop()
        await self.audit.stop()
        if self.provider is not None:
            await self.provider.keys.close()
        self.passwords.close()
        await self.database.close()


def _open_port(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None, option: str) -> str:
    """Listen; returns the real address."""
    try:
        if credentials is not None:
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise error(
            Reason.CONFIGURATION_INVALID,
            f"cannot listen on {address}: is the port in use? Choose another with {option}",
        )
    return f"{address.rpartition(':')[0]}:{port}"


def build_server(
    data: Path,
    *,
    listen: str | None = None,
    tls: bool = True,
    clock: Clock | None = None,
    config: ServerConfig | None = None,
    hasher: PasswordHasher | None = None,
) -> Server:
    """A server over a data directory that ``initialize`` made.

    Raises:
        ConfigurationError: the configuration is wrong.
    """
    settings = config or load_config(data)
    return Server(data, Listener(listen or settings.listen, tls), settings, clock or SystemClock(), hasher)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
