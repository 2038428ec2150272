"""What ``vantage.client`` offers is a promise: names are added here on purpose, and never taken away."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vantage import client

PROMISED = {
    *("Client", "AsyncClient", "TaskHandle", "AsyncTaskHandle"),
    *("TokenStore", "MemoryTokenStore", "FileTokenStore", "Tokens"),
    *("Question", "Answer", "Target", "Result", "Failure", "Content"),
    *("Task", "TaskState", "Run", "RunState", "OnFailure", "Wait", "WaitCause"),
    *("Event", "TaskSnapshot", "RunChanged", "RunFinished", "TaskFinished", "RunProgress", "RunLog", "RunWaits"),
    *("Organization", "User", "Collaboration", "Node", "Dataset", "Role", "Permission", "Principal", "ServerInfo"),
}


def test_promised_names_are_there() -> None:
    assert set(client.__all__) >= PROMISED
    assert client.__all__ == sorted(client.__all__)
    for name in client.__all__:
        assert getattr(client, name).__doc__, name


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        client.nothing_of_that_name  # noqa: B018


def test_the_package_alone_imports_no_transport() -> None:
    code = "import sys, vantage.client; sys.exit(any(name in sys.modules for name in ('grpc', 'google.protobuf')))"
    subprocess.run([sys.executable, "-c", code], check=True)
