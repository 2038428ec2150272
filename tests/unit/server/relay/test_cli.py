"""What the operator of a relay is told of what cannot be used."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from vantage.server.relay.cli import relay


def test_keys_that_are_none_are_said_to_be_that(tmp_path: Path) -> None:
    for content in (b"\xff\xfe\x00", b"", b"{}", b'{"keys": [1]}'):
        (tmp_path / "keys.json").write_bytes(content)
        keys = ["--name", "relay-1", "--keys", str(tmp_path / "keys.json")]
        told = CliRunner().invoke(relay, ["init", "--data", str(tmp_path / "relay"), *keys])
        assert told.exit_code == 1
        assert "vantage server relay-keys" in told.output, content
