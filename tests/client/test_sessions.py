"""Log-ins that programs share, and clients that outlive their server's process."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vantage.client import AsyncClient, FileTokenStore, TaskState
from vantage.common.errors import NotFoundError, PermissionDeniedError, Reason, UnauthenticatedError
from vantage.testing.proxy import Proxy
from vantage.testing.server import PASSWORD, ROOT, RunningServer, running_server
from vantage.testing.station import IMAGE

WHOAMI = """
import sys
from pathlib import Path
from vantage.client import Client, FileTokenStore
address, fingerprint, tokens = sys.argv[1:]
with Client.connect(address, fingerprint=fingerprint, token_store=FileTokenStore(Path(tokens))) as client:
    sys.stdin.readline()
    print(client.auth.whoami().name)
"""


async def founded(client: AsyncClient, server: RunningServer) -> None:
    """Root, an organization, a collaboration, a researcher."""
    await client.auth.bootstrap(server.bootstrap_token, ROOT, PASSWORD)
    await client.organizations.create("clara", display_name="Clara")
    await client.collaborations.create("trial", ["clara"])
    await client.users.create("rosa", PASSWORD, "clara", ["researcher"])
    await client.auth.login("rosa", PASSWORD)


async def test_programs_that_share_a_log_in_use_each_refresh_token_once(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path / "tokens" / "one.json")
    async with running_server(tmp_path / "server") as server:
        async with AsyncClient.connect(server.address, fingerprint=server.fingerprint, token_store=store) as client:
            await founded(client, server)
            principal = await client.auth.whoami()
            assert (principal.name, principal.organization) == ("users/rosa", "organizations/clara")
        assert store.path.stat().st_mode & 0o777 == 0o600
        before = json.loads(store.path.read_text())
        past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        store.path.write_text(json.dumps({**before, "access_expires": past}))
        programs = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", WHOAMI, server.address, server.fingerprint, str(store.path),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )
            for _ in range(3)
        ]  # fmt: skip
        # A token that is used twice ends the session: then at least one of them would fail.
        said = await asyncio.gather(*(each.communicate(b"\n") for each in programs))
        assert [out.decode().strip() for out, _errors in said] == ["users/rosa"] * 3, said
        after = json.loads(store.path.read_text())
        assert after["refresh_token"] != before["refresh_token"]
        async with AsyncClient.connect(server.address, fingerprint=server.fingerprint, token_store=store) as client:
            assert (await client.auth.whoami()).name == "users/rosa"
            await client.auth.logout()
        assert not store.path.exists()


async def test_waiting_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    async with Proxy.to("127.0.0.1:9") as proxy:
        async with running_server(tmp_path / "server") as server:
            proxy.lead_to(server.address)
            client = AsyncClient.connect(proxy.address, fingerprint=server.fingerprint)
            await founded(client, server)
            # No node will take it.
            task = await client.tasks.run(
                image=IMAGE, function="echo", arguments={"value": 1}, collaboration="trial", organizations=["clara"]
            )
            waiting = asyncio.create_task(task.results(timeout=60))
        async with running_server(tmp_path / "server") as again:
            proxy.lead_to(again.address)
            proxy.cut()
            assert not waiting.done()
            await client.tasks.cancel(task.name)
            (result,) = await waiting
            assert result.failure is not None
            assert result.failure.reason == Reason.TASK_CANCELLED.name
            assert task.state is TaskState.CANCELLED
            await client.close()


async def test_who_is_not_let_in_learns_why(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path / "server") as server,
        AsyncClient.connect(server.address, fingerprint=server.fingerprint) as client,
    ):
        with pytest.raises(UnauthenticatedError) as caught:
            await client.auth.bootstrap("wrong", ROOT, PASSWORD)
        assert caught.value.reason is Reason.BOOTSTRAP_TOKEN_INVALID
        await founded(client, server)
        with pytest.raises(UnauthenticatedError) as caught:
            await client.auth.login("rosa", "not her password")
        assert caught.value.reason is Reason.CREDENTIALS_INVALID
        assert (await client.auth.whoami()).name == "users/rosa"  # the log-in before goes on
        with pytest.raises(NotFoundError):
            await client.organizations.get("hilda")
        # Permission is decided first: whether there is such a collaboration is not told.
        with pytest.raises(PermissionDeniedError):
            await client.tasks.run(image=IMAGE, function="echo", collaboration="other", organizations=["clara"])
        await client.auth.logout()
        with pytest.raises(UnauthenticatedError, match="log in"):
            await client.auth.whoami()
