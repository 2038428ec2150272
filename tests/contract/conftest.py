from __future__ import annotations

import pytest

from scripts.lib import contract


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``rpc`` runs for every RPC of the contract, or for those of its module's ``OFFERED_HERE``."""
    if "rpc" in metafunc.fixturenames:
        offered = getattr(metafunc.module, "OFFERED_HERE", None)
        chosen = [rpc for rpc in contract.rpcs() if offered is None or rpc.service in offered]
        metafunc.parametrize("rpc", chosen, ids=lambda rpc: rpc.name.removeprefix("vantage.api."))
