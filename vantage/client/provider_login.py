"""Log-in at an OpenID Connect provider, by the user's own browser: what comes back is an ID token for the server.

Device flow (RFC 8628) where there is no browser, as over SSH; otherwise the authorization code flow with PKCE
(RFC 7636) and a redirect to this machine (RFC 8252). The user's password at the provider never passes through here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from vantage.client.models import DeviceCode, IdentityProvider
from vantage.common.errors import Reason, VantageError, error
from vantage.common.web import is_web_address

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
BROWSER_TIMEOUT = 300.0
"""Seconds for the user to log in."""
_HTTP_TIMEOUT = 20.0
_REQUEST_TIMEOUT = 10.0
_SLOW_DOWN = 5.0
_PAGE = b"<!doctype html><meta charset=utf-8><title>vantage</title><p>%s You can close this window."


async def device_flow(provider: IdentityProvider, nonce: str, show: Callable[[DeviceCode], None]) -> str:
    """Let the user log in on any device; returns the ID token.

    Args:
        provider: of the server.
        nonce: of the server, for this log-in.
        show: tells the user where to go.

    Raises:
        UnauthenticatedError: CREDENTIALS_INVALID: the user refused, or took too long.
        UnavailableError: IDENTITY_PROVIDER_UNAVAILABLE.
    """
    async with _session(provider) as (http, endpoints):
        question = {"client_id": provider.client_id, "scope": " ".join(provider.scopes), "nonce": nonce}
        begun = await _post(http, _endpoint(endpoints, "device_authorization_endpoint"), question)
        if "error" in begun:
            raise _unavailable(f"it refuses the device flow: {_said(begun)}")
        lifetime, interval = _seconds(begun.get("expires_in"), 600.0), _seconds(begun.get("interval"), 5.0)
        address = str(begun.get("verification_uri", ""))
        show(
            DeviceCode(address, str(begun.get("user_code")), str(begun.get("verification_uri_complete", "")), lifetime)
        )
        end = time.monotonic() + lifetime
        token_address = _endpoint(endpoints, "token_endpoint")
        answer = {"grant_type": DEVICE_GRANT, "device_code": begun.get("device_code"), "client_id": provider.client_id}
        while time.monotonic() < end:
            # Asking again and again is what the standard says; the provider has no way to call back.
            await asyncio.sleep(interval)
            got = await _post(http, token_address, answer)
            match got.get("error"):
                case None:
                    return _id_token(got)
                case "authorization_pending":
                    continue
                case "slow_down":
                    interval += _SLOW_DOWN
                case _:
                    raise _refused(_said(got))
        raise _refused("the code has expired")


async def code_flow(
    provider: IdentityProvider, nonce: str, open_browser: Callable[[str], None], timeout: float = BROWSER_TIMEOUT
) -> str:
    """Let the user log in with the browser of this machine; returns the ID token.

    Args:
        provider: of the server.
        nonce: of the server, for this log-in.
        open_browser: opens a page.
        timeout: seconds for the user to log in.

    Raises:
        UnauthenticatedError: CREDENTIALS_INVALID: the user refused, or took too long.
        UnavailableError: IDENTITY_PROVIDER_UNAVAILABLE.
    """
    async with _session(provider) as (http, endpoints):
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        answers: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _answer_redirect(reader, writer, state, answers)

        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        try:
            redirect = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/callback"
            question = {
                "response_type": "code",
                "client_id": provider.client_id,
                "redirect_uri": redirect,
                "scope": " ".join(provider.scopes),
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
            address = _endpoint(endpoints, "authorization_endpoint")
            open_browser(f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(question)}")
            try:
                async with asyncio.timeout(timeout):
                    came = await answers
            except TimeoutError:
                raise _refused("nobody logged in in time") from None
        finally:
            listener.close()
        # RFC 9207: another provider must not answer for this one.
        if came.get("iss", provider.issuer) != provider.issuer:
            raise _refused("the answer came from another provider")
        if "code" not in came:
            raise _refused(_said(came))
        exchange = {
            "grant_type": "authorization_code",
            "code": came["code"],
            "redirect_uri": redirect,
            "client_id": provider.client_id,
            "code_verifier": verifier,
        }
        got = await _post(http, _endpoint(endpoints, "token_endpoint"), exchange)
        if "error" in got:
            raise _refused(_said(got))
        return _id_token(got)


async def _answer_redirect(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: str, answers: asyncio.Future[dict[str, str]]
) -> None:
    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT):
            head = await reader.readuntil(b"\r\n\r\n")
        parts = urlsplit(head.split(b"\r\n")[0].decode("ascii").split(" ")[1])
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        # Any page in the browser can call this port: only who knows the state is listened to.
        ours = parts.path == "/callback" and secrets.compare_digest(query.get("state", "").encode(), state.encode())
        if ours and not answers.done():
            answers.set_result(query)
        status, text = (b"200 OK", b"Back to the terminal.") if ours else (b"404 Not Found", b"Nothing is here.")
        page = _PAGE % text
        writer.write(
            b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (status, len(page), page)
        )
        await writer.drain()
    except (OSError, TimeoutError, ValueError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # somebody else's request, or nonsense: the real one may still come
    finally:
        writer.close()


@asynccontextmanager
async def _session(provider: IdentityProvider) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, Any]]]:
    if not is_web_address(provider.issuer):
        raise _unavailable("its address is not https")
    try:
        async with httpx.AsyncClient(verify=ssl.create_default_context(), timeout=_HTTP_TIMEOUT) as http:
            found = (await http.get(provider.issuer.rstrip("/") + "/.well-known/openid-configuration")).json()
            if not isinstance(found, dict) or found.get("issuer") != provider.issuer:
                raise _unavailable("its discovery document names another issuer")
            yield http, found
    except (httpx.HTTPError, ValueError) as problem:
        raise _unavailable(f"{type(problem).__name__}: {problem}") from problem


def _endpoint(endpoints: dict[str, Any], name: str) -> str:
    address = endpoints.get(name)
    if not isinstance(address, str) or not is_web_address(address):
        raise _unavailable(f"it has no {name.replace('_', ' ')}")
    return address


async def _post(http: httpx.AsyncClient, address: str, form: dict[str, Any]) -> dict[str, Any]:
    found = (await http.post(address, data=form, headers={"Accept": "application/json"})).json()
    if not isinstance(found, dict):
        raise ValueError("the answer is no object")
    return found


def _id_token(got: dict[str, Any]) -> str:
    token = got.get("id_token")
    if not isinstance(token, str):
        raise _unavailable("it gave no ID token: does the scope contain openid?")
    return token


def _seconds(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) and 0 < value < 86_400 else default


def _said(answer: dict[str, Any]) -> str:
    return str(answer.get("error_description") or answer.get("error") or "no reason given")[:300]


def _refused(why: str) -> VantageError:
    return error(Reason.CREDENTIALS_INVALID, f"the log-in at the identity provider did not succeed: {why}")


def _unavailable(why: str) -> VantageError:
    return error(
        Reason.IDENTITY_PROVIDER_UNAVAILABLE,
        f"the identity provider cannot be used: {why}; try again, or ask its operator",
    )
