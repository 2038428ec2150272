"""The ordinary client is the asynchronous one without ``await``."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vantage.client import AsyncClient, AsyncTaskHandle, Client, TaskHandle, facade
from vantage.client.connection import GrpcTransport, ServerAddress

ROOT = Path(__file__).resolve().parents[2]


def public(of: type) -> dict[str, object]:
    return {name: value for name, value in inspect.getmembers(of) if not name.startswith("_")}


def ordinary(text: str) -> str:
    text = text.replace(" | AsyncIterable[Question]", "").replace("AsyncIterator", "Iterator")
    return re.sub(r"\blist\[", "builtins.list[", text.replace("AsyncTaskHandle", "TaskHandle"))


def pairs() -> list[tuple[type, type]]:
    client = Client(AsyncClient(GrpcTransport(ServerAddress("127.0.0.1:1", tls=False))))
    try:
        nouns = [name for name in vars(client._client) if not name.startswith("_")]
        both = [(type(getattr(client._client, noun)), type(getattr(client, noun))) for noun in nouns]
    finally:
        client.close()
    return [*both, (AsyncTaskHandle, TaskHandle)]


@pytest.mark.parametrize(("asynchronous", "sync"), pairs())
def test_names_signatures_and_docs_are_the_same(asynchronous: type, sync: type) -> None:
    theirs, ours = public(asynchronous), public(sync)
    assert theirs.keys() == ours.keys()
    for name, one in theirs.items():
        other = ours[name]
        if isinstance(one, property):
            assert isinstance(other, property)
            continue
        assert callable(one)
        assert callable(other)
        assert ordinary(str(inspect.signature(one))) == str(inspect.signature(other)), name
        assert inspect.getdoc(one) == inspect.getdoc(other)
        assert not inspect.iscoroutinefunction(other)


def test_clients_are_made_in_the_same_ways() -> None:
    for name in ("connect", "from_profile"):
        one, other = getattr(AsyncClient, name), getattr(Client, name)
        assert inspect.signature(one) == inspect.signature(other)
    assert public(AsyncClient).keys() == public(Client).keys()


def test_what_is_committed_is_what_is_generated() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "sync_client", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert facade.__doc__ is not None
    assert "Do not edit" in facade.__doc__
