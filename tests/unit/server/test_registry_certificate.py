"""The key and certificate of tokens for registries, in a data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from vantage.common.clock import SystemClock
from vantage.common.errors import ConfigurationError
from vantage.server.registry_certificate import CERTIFICATE_FILE, KEY_FILE, pull_tokens


def test_they_are_made_once_and_belong_together(tmp_path: Path) -> None:
    first = pull_tokens(tmp_path, SystemClock())
    again = pull_tokens(tmp_path, SystemClock())
    assert first.certificate == again.certificate
    assert first.key.private_numbers() == again.key.private_numbers()
    assert {each.name for each in tmp_path.iterdir()} == {KEY_FILE, CERTIFICATE_FILE}
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(ConfigurationError, match="remove both"):
        pull_tokens(tmp_path, SystemClock())
    for name in (KEY_FILE, CERTIFICATE_FILE):
        (tmp_path / name).unlink()
    assert pull_tokens(tmp_path, SystemClock()).certificate != first.certificate
