"""The file with the node's keys for sealed payloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from vantage.common.clock import SystemClock
from vantage.common.errors import VantageError
from vantage.node.seal_keys import SECRETS_FILE, SealKeys


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"AGE-SECRET-KEY-1OOPS\n"])
def test_a_file_that_holds_no_keys_is_said_to_be_that_and_not_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SECRETS_FILE).write_bytes(content)
    with pytest.raises(VantageError) as caught:
        SealKeys(tmp_path, SystemClock())
    assert "OOPS" not in str(caught.value)
    assert (tmp_path / SECRETS_FILE).read_bytes() == content
