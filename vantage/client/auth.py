"""Who is calling: log-in, log-out, passwords."""

from __future__ import annotations

from vantage.api.identity.v1 import auth_service_pb2 as pb
from vantage.client import converters
from vantage.client.caller import Caller
from vantage.client.models import Principal, ServerInfo
from vantage.client.short_names import bare


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
            one_time_code: when a second factor is enrolled.

        Returns:
            users/{user}.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID, also for unknown users.
            LimitExceededError: LOCKED_OUT, after too many wrong passwords.
        """
        request = pb.LoginRequest(username=bare("users", username), password=password, one_time_code=one_time_code)
        answer = await self._caller.unary(lambda stubs: stubs.auth.Login, request, anonymous=True)
        await self._caller.credentials.replace(self._caller.tokens(answer.user, answer.tokens))
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

    async def change_password(self, current_password: str, new_password: str) -> int:
        """Change the password and end the user's other sessions.

        Args:
            current_password: the password so far.
            new_password: at least 12 characters.

        Returns:
            How many other sessions ended.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID, the current password is wrong.
            InvalidArgumentError: PASSWORD_TOO_WEAK.
        """
        request = pb.ChangePasswordRequest(current_password=current_password, new_password=new_password)
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
