"""Log-in with a certified key, on a whole server."""

from pathlib import Path

import pytest

from tests.rpc.identity.world import World, reason
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import user_credential_service_pb2 as admin_pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import credential_pb2
from vantage.api.identity.v1 import credential_service_pb2 as pb
from vantage.common import pki
from vantage.common.assertion import sign_assertion
from vantage.common.errors import Reason
from vantage.testing.server import PASSWORD, bearer


class Keys:
    """Authorities of clara and hilda, known to the server, and keys that they certify."""

    def __init__(self, world: World, directory: Path) -> None:
        self._world = world
        self.authorities = {
            name: pki.CertificateAuthority.create(directory / name, f"organizations/{name}", clock=world.clock)
            for name in ("clara", "hilda")
        }

    async def publish(self) -> None:
        for name, authority in self.authorities.items():
            await self._world.organizations.SetCaCertificates(
                organization_pb.SetCaCertificatesRequest(
                    name=f"organizations/{name}", ca_certificates=[pki.to_pem(authority.certificate)]
                ),
                metadata=self._world.root,
            )

    async def assertion(self, organization: str, user: str) -> str:
        """A fresh assertion of a user whom an organization has certified."""
        key, name = pki.create_key(), f"organizations/{organization}/users/{user}"
        leaf = self.authorities[organization].issue(name, key.public_key())
        info = await self._world.auth.GetServerInfo(auth_pb.GetServerInfoRequest())
        return sign_assertion(key, [leaf], name, info.audience, self._world.clock)

    async def exchange(self, organization: str, user: str) -> auth_pb.ExchangeAssertionResponse:
        request = auth_pb.ExchangeAssertionRequest(assertion=await self.assertion(organization, user))
        return await self._world.auth.ExchangeAssertion(request)


@pytest.fixture
async def keys(world: World, tmp_path: Path) -> Keys:
    made = Keys(world, tmp_path)
    await made.publish()
    return made


async def test_a_service_account_logs_in_with_its_key_only(world: World, keys: Keys) -> None:
    made = await world.create("robot", password="", kind=user_pb.USER_KIND_SERVICE_ACCOUNT)
    assert made.user.kind == user_pb.USER_KIND_SERVICE_ACCOUNT
    assert made.reset_token == ""
    answer = await keys.exchange("clara", "robot")
    assert answer.principal == "users/robot"
    assert answer.tokens.refresh_token == ""
    me = bearer(answer.tokens)
    assert await world.who(me) == "users/robot"
    [session] = (await world.own.ListSessions(pb.ListSessionsRequest(), metadata=me)).sessions
    assert session.method == credential_pb2.LOGIN_METHOD_KEY
    for password in ("", PASSWORD):
        assert await reason(world.login("robot", password)) is Reason.CREDENTIALS_INVALID
    issue = admin_pb.IssuePasswordResetRequest(user="users/robot")
    assert await reason(world.admin.IssuePasswordReset(issue, metadata=world.root)) is Reason.ENROLMENT_STATE
    begin = pb.BeginOneTimeCodesRequest(password="")
    assert await reason(world.own.BeginOneTimeCodes(begin, metadata=me)) is Reason.ENROLMENT_STATE


async def test_a_service_account_needs_an_organization_and_no_password(world: World) -> None:
    kind = user_pb.USER_KIND_SERVICE_ACCOUNT
    for fields in ({"password": PASSWORD}, {"password": "", "organization": ""}):
        assert await reason(world.create("robot", kind=kind, **fields)) is Reason.INVALID_ARGUMENT
    assert await reason(world.create("robot", kind=77)) is Reason.INVALID_ARGUMENT


async def test_a_person_may_have_a_key_too(world: World, keys: Keys) -> None:
    assert (await keys.exchange("clara", "rosa")).principal == "users/rosa"


async def test_an_organization_vouches_for_its_own_users_only(world: World, keys: Keys) -> None:
    await world.create("hans", organization="organizations/hilda")
    await world.create("olga", organization="", role="root")
    await keys.exchange("hilda", "hans")
    for user in ("hans", "olga", "root", "nobody"):
        assert await reason(keys.exchange("clara", user)) is Reason.PRINCIPAL_UNKNOWN


async def test_an_assertion_works_once(world: World, keys: Keys) -> None:
    request = auth_pb.ExchangeAssertionRequest(assertion=await keys.assertion("clara", "rosa"))
    await world.auth.ExchangeAssertion(request)
    assert await reason(world.auth.ExchangeAssertion(request)) is Reason.ASSERTION_REPLAYED


async def test_revocation_reaches_log_ins_by_key_at_once(world: World, keys: Keys) -> None:
    me = bearer((await keys.exchange("clara", "rosa")).tokens)
    assert await world.who(me) == "users/rosa"
    request = admin_pb.RevokeSessionsRequest(user="users/rosa")
    assert (await world.admin.RevokeSessions(request, metadata=world.root)).ended_sessions == 1
    assert await reason(world.who(me)) is Reason.TOKEN_INVALID
    me = bearer((await keys.exchange("clara", "rosa")).tokens)
    assert await world.who(me) == "users/rosa"
    await world.users.DeleteUser(user_pb.DeleteUserRequest(name="users/rosa"), metadata=world.root)
    assert await reason(world.who(me)) is Reason.TOKEN_INVALID
    assert await reason(keys.exchange("clara", "rosa")) is Reason.PRINCIPAL_UNKNOWN
