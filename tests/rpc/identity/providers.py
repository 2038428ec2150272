"""Real OpenID Connect providers as processes on loopback, and a browser that logs in there."""

from __future__ import annotations

import asyncio
import html
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx

INTEROP = Path(__file__).resolve().parents[2] / "interop"
_MOCK = """
import sys, threading
from oidc_provider_mock import User, run_server_in_thread
users = [User(sub=name, claims={"email": name, "email_verified": True}) for name in sys.argv[1:]]
with run_server_in_thread(user_claims=users) as server:
    print(f"http://localhost:{server.server_port}", flush=True)
    sys.stdin.read()
"""


@asynccontextmanager
async def _process(*command: str, directory: Path | None = None) -> AsyncIterator[str]:
    """A process that prints its issuer first and ends with its stdin."""
    running = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert running.stdout is not None
    assert running.stdin is not None
    try:
        async with asyncio.timeout(30):
            issuer = (await running.stdout.readline()).decode().strip()
        assert issuer.startswith("http://"), "the provider did not start"
        yield issuer
    finally:
        running.stdin.close()
        try:
            async with asyncio.timeout(5):
                await running.wait()
        except TimeoutError:
            running.kill()
            await running.wait()


def node_provider(algorithm: str = "RS256"):  # type: ignore[no-untyped-def]
    """npm oidc-provider: device flow, and code flow that insists on PKCE."""
    return _process("node", "identity_provider.mjs", algorithm, directory=INTEROP)


def mock_provider(*subjects: str):  # type: ignore[no-untyped-def]
    """PyPI oidc-provider-mock: code flow."""
    return _process(sys.executable, "-W", "ignore", "-c", _MOCK, *subjects)


async def mock_id_token(issuer: str, subject: str, nonce: str, audience: str = "vantage") -> str:
    """An ID token of the mock provider by its code flow; it takes no client without a secret, but any secret."""
    redirect = "http://127.0.0.1:1/callback"
    question = {
        "response_type": "code",
        "client_id": audience,
        "redirect_uri": redirect,
        "scope": "openid email",
        "state": "state",
        "nonce": nonce,
    }
    async with httpx.AsyncClient(timeout=20) as browser:
        sent = await browser.post(f"{issuer}/oauth2/authorize", params=question, data={"sub": subject})
        code = parse_qs(urlsplit(sent.headers["location"]).query)["code"][0]
        exchange = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect}
        answer = await browser.post(f"{issuer}/oauth2/token", data=exchange, auth=(audience, "any secret"))
    return str(answer.json()["id_token"])


async def browse(address: str, subject: str) -> None:
    """Open a page and do what a person does: fill in and send each form, until there is none."""
    async with httpx.AsyncClient(follow_redirects=True, timeout=20) as browser:
        page = await browser.get(address)
        for _ in range(8):
            form = re.search(r"<form[^>]*>.*?</form>", page.text, re.S)
            if form is None:
                return
            action = re.search(r'action="([^"]*)"', form[0])
            fields: dict[str, str] = {"login": subject, "password": "any"} if "password" in form[0] else {}
            for given in re.findall(r"<(?:input|button)[^>]*>", form[0]):
                name, value = re.search(r'name="([^"]*)"', given), re.search(r'value="([^"]*)"', given)
                if name and value and name[1] != "abort":
                    fields.setdefault(name[1], html.unescape(value[1]))
            target = urljoin(str(page.url), html.unescape(action[1]) if action else "")
            page = await browser.post(target, data=fields)
    raise AssertionError("the provider asks without end")
