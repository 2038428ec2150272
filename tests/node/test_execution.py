"""Directories of attempts."""

from __future__ import annotations

import hashlib
from typing import Any

from vantage.node import config as node_config
from vantage.node.execution import Execution
from vantage.testing.station import Station, assign


async def test_a_server_cannot_choose_leases_whose_files_meet(station: Station) -> None:
    """It chooses their ids: with less than the whole digest it could find two with one directory."""
    others: list[Any] = [None] * 9
    execution = Execution(node_config.load(station.write()), *others)
    lease = assign().lease
    assert execution.directory(lease).name == hashlib.sha256(lease.lease_id.encode()).hexdigest()
