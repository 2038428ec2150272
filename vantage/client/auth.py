"""Who is calling: log-in, log-out, passwords."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vantage.api.identity.v1 import auth_service_pb2 as pb
from vantage.api.identity.v1 import credential_service_pb2 as credential_pb
from vantage.client import converters
from vantage.client.caller import Caller
from vantage.client.models import (
    Credentials,
    DeviceCode,
    Enrolment,
    IdentityProvider,
    LoginSession,
    Principal,
    ServerInfo,
)
from vantage.client.short_names import bare
from vantage.common.errors import Reason, error


class AsyncAuth:
    """Logs in and out. Tokens go to the client's token store and are renewed from there."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def server_info(self) -> ServerInfo:
        """What the server tells everybody: versions, limits, whether it waits for its first user."""
        info = await self._caller.unary(
            lambda stubs: stubs.auth.GetServerInfo, pb.GetServerInfoRequest(), anonymous=True, repeatable=True
        )
        return ServerInfo(
            info.version,
            info.audience,
            info.max_inline_payload_bytes,
            info.max_payload_bytes,
            converters.moment(info.server_time),
            info.bootstrap_pending,
            IdentityProvider(
                info.identity_provider.issuer, info.identity_provider.client_id, tuple(info.identity_provider.scopes)
            )
            if info.HasField("identity_provider")
            else None,
        )

    async def bootstrap(self, bootstrap_token: str, username: str, password: str) -> str:
        """Create the server's first user, with role root, and log in.

        Args:
            bootstrap_token: what ``vantage server init`` printed; works once.
            username: login name.
            password: at least 12 characters.

        Returns:
            users/{user}.

        Raises:
            UnauthenticatedError: BOOTSTRAP_TOKEN_INVALID, wrong or used already.
            InvalidArgumentError: PASSWORD_TOO_WEAK.
        """
        request = pb.BootstrapRequest(
            bootstrap_token=bootstrap_token, username=bare("users", username), password=password
        )
        answer = await self._caller.unary(lambda stubs: stubs.auth.Bootstrap, request, anonymous=True)
        await self._caller.credentials.replace(self._caller.tokens(answer.user, answer.tokens))
        return answer.user

    async def login(self, username: str, password: str, one_time_code: str = "") -> str:
        """Log in with a password.

        Args:
            username: login name.
            password: its password.
            one_time_code: one-time code or recovery code, when enrolled.

        Returns:
            users/{user}.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID, also for unknown users; ONE_TIME_CODE_REQUIRED, the password was
                right: call again with the code.
            LimitExceededError: LOCKED_OUT, after too many wrong passwords or codes.
        """
        request = pb.LoginRequest(username=bare("users", username), password=password, one_time_code=one_time_code)
        answer = await self._caller.unary(lambda stubs: stubs.auth.Login, request, anonymous=True)
        await self._caller.credentials.replace(self._caller.tokens(answer.user, answer.tokens))
        return answer.user

    async def login_at_provider(
        self,
        show: Callable[[DeviceCode], None] | None = None,
        open_browser: Callable[[str], None] | None = None,
    ) -> str:
        """Log in at the server's identity provider: with a browser on this machine, or on any device.

        Args:
            show: tells the user where to go; for the device flow.
            open_browser: opens a page; for the flow with a browser on this machine, which is taken when this is given.

        Returns:
            users/{user}.

        Raises:
            InvalidArgumentError: IDENTITY_PROVIDER_MISSING.
            UnauthenticatedError: CREDENTIALS_INVALID, the user refused or took too long; IDENTITY_TOKEN_INVALID.
            PermissionDeniedError: IDENTITY_UNKNOWN, nobody is linked to this identity.
            UnavailableError: IDENTITY_PROVIDER_UNAVAILABLE.
        """
        nonce, token = await self._identity_token(show, open_browser)
        answer = await self._caller.unary(
            lambda stubs: stubs.auth.ExchangeIdentityToken,
            pb.ExchangeIdentityTokenRequest(nonce=nonce, id_token=token),
            anonymous=True,
        )
        await self._caller.credentials.replace(self._caller.tokens(answer.user, answer.tokens))
        return answer.user

    async def link_identity(
        self,
        password: str,
        one_time_code: str = "",
        show: Callable[[DeviceCode], None] | None = None,
        open_browser: Callable[[str], None] | None = None,
    ) -> str:
        """Let the caller log in with an identity at the server's provider from now on.

        Args:
            password: the caller's; empty when they have none.
            one_time_code: when enrolled.
            show: as for ``login_at_provider``.
            open_browser: as for ``login_at_provider``.

        Returns:
            The subject that was linked.

        Raises:
            ConflictError: ALREADY_EXISTS, it is linked to another user.
            UnauthenticatedError: as for ``login`` and ``login_at_provider``.
        """
        nonce, token = await self._identity_token(show, open_browser)
        request = credential_pb.LinkIdentityRequest(
            nonce=nonce, id_token=token, password=password, one_time_code=one_time_code
        )
        answer = await self._caller.unary(lambda stubs: stubs.credentials.LinkIdentity, request)
        return answer.identity.subject

    async def unlink_identity(self, issuer: str, subject: str) -> int:
        """Let the caller log in with an identity no more; returns how many sessions that began with one ended.

        Args:
            issuer: as ``credentials`` tells.
            subject: as ``credentials`` tells.

        Raises:
            NotFoundError: it is not linked to the caller.
        """
        request = credential_pb.UnlinkIdentityRequest(issuer=issuer, subject=subject)
        answer = await self._caller.unary(lambda stubs: stubs.credentials.UnlinkIdentity, request)
        return answer.ended_sessions

    async def begin_one_time_codes(self, password: str) -> Enrolment:
        """Begin to enrol one-time codes; nothing changes until they are confirmed.

        Args:
            password: the caller's.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID.
            ConflictError: ENROLMENT_STATE, enrolled already.
        """
        answer = await self._caller.unary(
            lambda stubs: stubs.credentials.BeginOneTimeCodes, credential_pb.BeginOneTimeCodesRequest(password=password)
        )
        return Enrolment(answer.secret, answer.uri)

    async def confirm_one_time_codes(self, one_time_code: str) -> list[str]:
        """Ask for a code at each log-in from now on, and end the caller's other sessions.

        Args:
            one_time_code: that the app shows.

        Returns:
            Recovery codes, each of which replaces a code once.

        Raises:
            InvalidArgumentError: ONE_TIME_CODE_INVALID.
            ConflictError: ENROLMENT_STATE, not begun, or confirmed already.
        """
        request = credential_pb.ConfirmOneTimeCodesRequest(one_time_code=one_time_code)
        answer = await self._caller.unary(lambda stubs: stubs.credentials.ConfirmOneTimeCodes, request)
        return list(answer.recovery_codes)

    async def disable_one_time_codes(self, password: str, one_time_code: str) -> None:
        """Ask for codes no more.

        Args:
            password: the caller's.
            one_time_code: or a recovery code.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID.
            ConflictError: ENROLMENT_STATE, not enrolled.
        """
        request = credential_pb.DisableOneTimeCodesRequest(password=password, one_time_code=one_time_code)
        await self._caller.unary(lambda stubs: stubs.credentials.DisableOneTimeCodes, request)

    async def renew_recovery_codes(self, password: str, one_time_code: str) -> list[str]:
        """Replace all recovery codes.

        Args:
            password: the caller's.
            one_time_code: or a recovery code.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID.
            ConflictError: ENROLMENT_STATE, not enrolled.
        """
        request = credential_pb.RenewRecoveryCodesRequest(password=password, one_time_code=one_time_code)
        answer = await self._caller.unary(lambda stubs: stubs.credentials.RenewRecoveryCodes, request)
        return list(answer.recovery_codes)

    async def sessions(self) -> list[LoginSession]:
        """The caller's sessions, the latest first; at most 500."""
        answer = await self._caller.unary(
            lambda stubs: stubs.credentials.ListSessions,
            credential_pb.ListSessionsRequest(page_size=500),
            repeatable=True,
        )
        return [converters.login_session(each) for each in answer.sessions]

    async def credentials(self) -> Credentials:
        """How the caller can log in, and their sessions."""
        answer = await self._caller.unary(
            lambda stubs: stubs.credentials.GetCredentials, credential_pb.GetCredentialsRequest(), repeatable=True
        )
        return replace(converters.credentials(answer.credentials, ()), sessions=tuple(await self.sessions()))

    async def end_session(self, session_id: str) -> None:
        """End one of the caller's sessions; its tokens stop to work at once.

        Args:
            session_id: as ``sessions`` tells.

        Raises:
            NotFoundError: the caller has no such session.
        """
        request = credential_pb.EndSessionRequest(session_id=session_id)
        await self._caller.unary(lambda stubs: stubs.credentials.EndSession, request)

    async def reset_password(self, reset_token: str, new_password: str) -> str:
        """Set a password with a token that an admin issued.

        Args:
            reset_token: works once.
            new_password: at least 12 characters.

        Returns:
            users/{user}, who can now log in.

        Raises:
            UnauthenticatedError: RESET_TOKEN_INVALID.
            InvalidArgumentError: PASSWORD_TOO_WEAK.
        """
        request = pb.ResetPasswordRequest(reset_token=reset_token, new_password=new_password)
        answer = await self._caller.unary(lambda stubs: stubs.auth.ResetPassword, request, anonymous=True)
        return answer.user

    async def logout(self, all_sessions: bool = False) -> int:
        """End the session at the server and forget its tokens.

        Args:
            all_sessions: end all sessions of the user, not just this one.

        Returns:
            How many sessions ended.

        Raises:
            UnauthenticatedError: nobody is logged in.
        """
        answer = await self._caller.unary(lambda stubs: stubs.auth.Logout, pb.LogoutRequest(all_sessions=all_sessions))
        await self._caller.credentials.replace(None)
        return answer.ended_sessions

    async def change_password(self, current_password: str, new_password: str, one_time_code: str = "") -> int:
        """Change the password and end the user's other sessions.

        Args:
            current_password: the password so far.
            new_password: at least 12 characters.
            one_time_code: when enrolled.

        Returns:
            How many other sessions ended.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID, the current password is wrong.
            InvalidArgumentError: PASSWORD_TOO_WEAK.
        """
        request = pb.ChangePasswordRequest(
            current_password=current_password, new_password=new_password, one_time_code=one_time_code
        )
        answer = await self._caller.unary(lambda stubs: stubs.auth.ChangePassword, request)
        return answer.ended_sessions

    async def whoami(self) -> Principal:
        """Who is logged in, with roles and collaborations.

        Raises:
            UnauthenticatedError: nobody is logged in.
        """
        answer = await self._caller.unary(
            lambda stubs: stubs.auth.GetPrincipal, pb.GetPrincipalRequest(), repeatable=True
        )
        return Principal(answer.name, answer.organization, tuple(answer.roles), tuple(answer.collaborations))

    async def _identity_token(
        self, show: Callable[[DeviceCode], None] | None, open_browser: Callable[[str], None] | None
    ) -> tuple[str, str]:
        from vantage.client import provider_login  # here: it brings an HTTP client, which others need not load

        answer = await self._caller.unary(
            lambda stubs: stubs.auth.GetLoginNonce, pb.GetLoginNonceRequest(), anonymous=True, repeatable=True
        )
        provider = (await self.server_info()).identity_provider
        if provider is None:  # removed between the two calls
            raise error(Reason.IDENTITY_PROVIDER_MISSING, "the server has no identity provider: log in with a password")
        if open_browser is not None:
            return answer.nonce, await provider_login.code_flow(provider, answer.nonce, open_browser)
        return answer.nonce, await provider_login.device_flow(provider, answer.nonce, show or _print)


def _print(code: DeviceCode) -> None:
    print(f"Open {code.complete_address or code.address} and confirm the code {code.code}", flush=True)
