"""One-time codes and recovery codes, on a whole server."""

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from tests.rpc.identity.world import World, reason
from vantage.api.admin.v1 import audit_service_pb2 as audit_pb
from vantage.api.admin.v1 import audit_service_pb2_grpc
from vantage.api.admin.v1 import user_credential_service_pb2 as admin_pb
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import credential_service_pb2 as pb
from vantage.common.errors import Reason, VantageError
from vantage.server.rescue import rescue
from vantage.testing.server import PASSWORD, bearer


async def test_a_log_in_needs_the_code_once_it_is_confirmed(world: World) -> None:
    me = bearer(await world.login())
    begun = await world.own.BeginOneTimeCodes(pb.BeginOneTimeCodesRequest(password=PASSWORD), metadata=me)
    assert begun.uri.startswith("otpauth://totp/vantage:rosa?secret=")
    await world.login()  # not confirmed: nothing has changed
    app, codes = await world.enrol(me)
    assert len(set(codes)) == 10
    assert await reason(world.login()) is Reason.ONE_TIME_CODE_REQUIRED
    world.clock.advance(timedelta(seconds=30))
    assert await world.who(bearer(await world.login(code=world.code(app)))) == "users/rosa"
    found = (await world.own.GetCredentials(pb.GetCredentialsRequest(), metadata=me)).credentials
    assert (found.has_password, found.one_time_codes_enabled, found.recovery_codes_left) == (True, True, 10)


async def test_a_code_counts_once_and_no_earlier_one_after_it(world: World) -> None:
    app, _codes = await world.enrol(bearer(await world.login()))
    assert await reason(world.login(code=world.code(app))) is Reason.CREDENTIALS_INVALID  # it confirmed the enrolment
    earlier = world.code(app)
    world.clock.advance(timedelta(seconds=60))
    between = app.at(world.clock.now() - timedelta(seconds=30))
    await world.login(code=world.code(app))
    for code in (world.code(app), between, earlier):
        assert await reason(world.login(code=code)) is Reason.CREDENTIALS_INVALID


@pytest.mark.parametrize("shift", [-30, 30])
async def test_a_clock_half_a_minute_off_does_no_harm(world: World, shift: int) -> None:
    app, _codes = await world.enrol(bearer(await world.login()))
    world.clock.advance(timedelta(minutes=5))
    await world.login(code=app.at(world.clock.now() + timedelta(seconds=shift)))
    assert await reason(world.login(code=app.at(world.clock.now() + timedelta(seconds=3 * shift)))) is (
        Reason.CREDENTIALS_INVALID
    )


async def test_a_recovery_code_replaces_a_code_once(world: World) -> None:
    me = bearer(await world.login())
    _app, codes = await world.enrol(me)
    await world.login(code=codes[0])
    await world.login(code=codes[1].replace("-", " ").upper())  # as people type it
    assert await reason(world.login(code=codes[0])) is Reason.CREDENTIALS_INVALID
    found = (await world.own.GetCredentials(pb.GetCredentialsRequest(), metadata=me)).credentials
    assert found.recovery_codes_left == 8
    renewed = await world.own.RenewRecoveryCodes(
        pb.RenewRecoveryCodesRequest(password=PASSWORD, one_time_code=codes[2]), metadata=me
    )
    assert await reason(world.login(code=codes[3])) is Reason.CREDENTIALS_INVALID
    await world.login(code=renewed.recovery_codes[0])


async def test_a_right_password_without_code_is_told_and_wrong_ones_are_not(world: World) -> None:
    """Whoever lacks the password cannot tell who has codes, nor who exists."""
    await world.enrol(bearer(await world.login()))
    for user, password, code in (("rosa", "wrong", ""), ("rosa", "wrong", "123456"), ("nobody", "wrong", "")):
        assert await reason(world.login(user, password, code)) is Reason.CREDENTIALS_INVALID


async def test_wrong_codes_lock_out_and_questions_in_between_do_not_help(world: World) -> None:
    app, codes = await world.enrol(bearer(await world.login()))
    world.clock.advance(timedelta(minutes=5))
    wrong = [f"{number:06}" for number in range(4)]
    assert not {app.at(world.clock.now() + timedelta(seconds=each)) for each in (-30, 0, 30)} & set(wrong)
    for code in wrong:
        assert await reason(world.login(code=code)) is Reason.CREDENTIALS_INVALID
        assert await reason(world.login()) is Reason.ONE_TIME_CODE_REQUIRED
    wrong_recovery = "aaaa-aaaa-aaaa-aaaa"
    assert await reason(world.login(code=wrong_recovery)) is Reason.CREDENTIALS_INVALID
    assert await reason(world.login(code=codes[0])) is Reason.LOCKED_OUT
    assert await reason(world.login()) is Reason.LOCKED_OUT
    world.clock.advance(timedelta(seconds=2))
    assert await reason(world.login(code=wrong_recovery)) is Reason.CREDENTIALS_INVALID
    world.clock.advance(timedelta(seconds=2))
    assert await reason(world.login(code=codes[0])) is Reason.LOCKED_OUT  # the wait doubles
    world.clock.advance(timedelta(seconds=2))
    await world.login(code=codes[0])
    await world.login(code=codes[1])  # a success takes the count back


async def test_asking_for_the_code_is_not_an_attempt(world: World) -> None:
    app, _codes = await world.enrol(bearer(await world.login()))
    for _ in range(8):
        assert await reason(world.login()) is Reason.ONE_TIME_CODE_REQUIRED
    world.clock.advance(timedelta(seconds=30))
    await world.login(code=world.code(app))


async def test_a_stolen_token_neither_enrols_nor_disables(world: World) -> None:
    me = bearer(await world.login())
    begin = pb.BeginOneTimeCodesRequest(password="not the password")
    assert await reason(world.own.BeginOneTimeCodes(begin, metadata=me)) is Reason.CREDENTIALS_INVALID
    app, _codes = await world.enrol(me)
    world.clock.advance(timedelta(seconds=30))
    disable = pb.DisableOneTimeCodesRequest(password="not the password", one_time_code=world.code(app))
    assert await reason(world.own.DisableOneTimeCodes(disable, metadata=me)) is Reason.CREDENTIALS_INVALID
    disable = pb.DisableOneTimeCodesRequest(password=PASSWORD)
    assert await reason(world.own.DisableOneTimeCodes(disable, metadata=me)) is Reason.ONE_TIME_CODE_REQUIRED
    change = auth_pb.ChangePasswordRequest(current_password=PASSWORD, new_password="quite another long sentence")
    assert await reason(world.auth.ChangePassword(change, metadata=me)) is Reason.ONE_TIME_CODE_REQUIRED
    disable.one_time_code = world.code(app)
    await world.own.DisableOneTimeCodes(disable, metadata=me)
    await world.login()
    assert await reason(world.own.DisableOneTimeCodes(disable, metadata=me)) is Reason.ENROLMENT_STATE


async def test_guesses_at_an_enrolment_are_counted(world: World) -> None:
    me = bearer(await world.login())
    begin = pb.BeginOneTimeCodesRequest(password=PASSWORD)
    confirm = pb.ConfirmOneTimeCodesRequest(one_time_code="12345")
    assert await reason(world.own.ConfirmOneTimeCodes(confirm, metadata=me)) is Reason.ENROLMENT_STATE
    await world.own.BeginOneTimeCodes(begin, metadata=me)
    for _ in range(5):
        assert await reason(world.own.ConfirmOneTimeCodes(confirm, metadata=me)) is Reason.ONE_TIME_CODE_INVALID
    assert await reason(world.own.ConfirmOneTimeCodes(confirm, metadata=me)) is Reason.LOCKED_OUT


@pytest.mark.parametrize("enrolled", [False, True])
async def test_confirming_nothing_makes_no_wrong_password_forgotten(world: World, enrolled: bool) -> None:
    me = bearer(await world.login())
    if enrolled:
        await world.enrol(me)
    confirm = pb.ConfirmOneTimeCodesRequest(one_time_code="12345")
    begin = pb.BeginOneTimeCodesRequest(password="not the password")
    for _ in range(5):
        assert await reason(world.own.ConfirmOneTimeCodes(confirm, metadata=me)) is Reason.ENROLMENT_STATE
        disable = pb.DisableOneTimeCodesRequest(password="not the password", one_time_code="123456")
        wrong = (
            world.own.DisableOneTimeCodes(disable, metadata=me)
            if enrolled
            else world.own.BeginOneTimeCodes(begin, metadata=me)
        )
        assert await reason(wrong) is Reason.CREDENTIALS_INVALID
    assert await reason(world.own.ConfirmOneTimeCodes(confirm, metadata=me)) is Reason.LOCKED_OUT


async def test_enrolling_ends_the_other_sessions_at_once(world: World) -> None:
    me, other = bearer(await world.login()), bearer(await world.login())
    assert await world.who(other) == "users/rosa"
    await world.enrol(me)
    assert await reason(world.who(other)) is Reason.TOKEN_INVALID
    assert await world.who(me) == "users/rosa"


async def test_an_admin_removes_codes_that_were_lost(world: World) -> None:
    me = bearer(await world.login())
    await world.enrol(me)
    request = admin_pb.RemoveOneTimeCodesRequest(user="users/rosa")
    assert await reason(world.admin.RemoveOneTimeCodes(request, metadata=me)) is Reason.PERMISSION_DENIED
    await world.create("anna", "organization-admin")
    anna = bearer(await world.login("anna"))
    assert (await world.admin.RemoveOneTimeCodes(request, metadata=anna)).ended_sessions == 1
    assert await reason(world.who(me)) is Reason.TOKEN_INVALID
    await world.login()


async def test_the_database_alone_tells_no_secret(world: World) -> None:
    app, codes = await world.enrol(bearer(await world.login()))
    data = world.server.server.data
    with sqlite3.connect(data / "server.db") as database:
        stored = b"".join(bytes(row[0]) for row in database.execute("SELECT sealed_secret FROM one_time_code"))
        hashes = b"".join(bytes(row[0]) for row in database.execute("SELECT code_hash FROM recovery_code"))
    database.close()
    assert app.byte_secret() not in stored
    assert app.secret.encode() not in stored
    assert codes[0].encode() not in hashes
    assert (data / "secrets.key").stat().st_mode & 0o777 == 0o600


async def test_the_operator_lets_somebody_in_who_has_lost_everything(world: World, tmp_path: Path) -> None:
    await world.enrol(bearer(await world.login()))
    for _ in range(5):
        assert await reason(world.login(password="guessed")) is Reason.CREDENTIALS_INVALID
    data = world.server.server.data
    token, _expires = await asyncio.to_thread(rescue, data, "rosa", world.clock)
    await world.auth.ResetPassword(
        auth_pb.ResetPasswordRequest(reset_token=token, new_password="nine calm otters swim")
    )
    me = bearer(await world.login(password="nine calm otters swim"))  # without a code
    found = (await world.own.GetCredentials(pb.GetCredentialsRequest(), metadata=me)).credentials
    assert not found.one_time_codes_enabled
    audit = audit_service_pb2_grpc.AuditServiceStub(world.server.channel())
    page = await audit.ListAuditEntries(audit_pb.ListAuditEntriesRequest(), metadata=world.root)
    assert ("server.rescue", "users/rosa") in [(each.event, each.target) for each in page.entries]
    with pytest.raises(VantageError, match="there is no users/nobody"):
        await asyncio.to_thread(rescue, data, "nobody", world.clock)
    with pytest.raises(VantageError, match="not a server's data directory"):
        await asyncio.to_thread(rescue, tmp_path, "rosa", world.clock)
    (tmp_path / "server.yaml").touch()
    with pytest.raises(VantageError, match="bring it back"):
        await asyncio.to_thread(rescue, tmp_path, "rosa", world.clock)
    assert not (tmp_path / "server.db").exists()
