"""Commands about a data directory that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from vantage.__main__ import vantage


@pytest.mark.parametrize("command", ["relay-keys", "registry-certificate"])
def test_keys_of_a_server_are_shown_and_none_is_made_where_there_is_no_server(command: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(vantage, ["server", command, "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "not a server's data directory" in done.output
    assert list(tmp_path.iterdir()) == []
