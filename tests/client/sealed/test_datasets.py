"""What researchers see of the datasets of nodes: what these share, bounded, and also after a restart of the server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from vantage.__main__ import vantage
from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.client import AsyncClient, Dataset, DatasetQuery, DatasetTable, QueryParameter
from vantage.server.storage import presence_store
from vantage.testing.scripted_node import ScriptedNode
from vantage.testing.sealed_network import SealedNetwork
from vantage.testing.server import PASSWORD

SHARED = pb.DatasetInfo(
    name="registry",
    format="postgresql",
    description="All cases",
    access="query",
    tables=[
        pb.DatasetTable(name="cases", columns=[pb.DatasetColumn(name="age", type="integer")], row_count=3),
        pb.DatasetTable(name="visits", columns=[pb.DatasetColumn(name="day", type="date")]),
    ],
    queries=[
        pb.DatasetQuery(
            name="adults",
            description="From an age on",
            parameters=[pb.QueryParameter(name="age", type="integer", minimum="18", maximum="99", required=True)],
        )
    ],
)


async def test_a_catalogue_reaches_those_who_may_see_the_node(
    client: AsyncClient, network: SealedNetwork, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clara = ScriptedNode(network.server.channel(), network.nodes["clara"].metadata)
    await clara.hello(datasets=[SHARED, pb.DatasetInfo(name="lung", format="csv")])
    age = QueryParameter("age", "integer", minimum="18", maximum="99", required=True)
    expected = Dataset(
        "registry",
        "postgresql",
        "All cases",
        "query",
        (DatasetTable("cases", (("age", "integer"),), 3), DatasetTable("visits", (("day", "date"),))),
        (DatasetQuery("adults", "From an age on", (age,)),),
    )
    found = await client.nodes.get("clara/clara-1")
    assert found.datasets == (expected, Dataset("lung", "csv"))
    # Kept, for the next process of the server.
    kept = (await network.server.server.database.read(presence_store.load))[found.name]
    assert json.loads(kept.catalogue)["datasets"][0]["tables"][0]["rowCount"] == "3"

    monkeypatch.setenv("VANTAGE_CONFIG_DIR", str(tmp_path / "c"))

    def run(*arguments: str, stdin: str | None = None) -> str:
        done = CliRunner().invoke(vantage, list(arguments), input=stdin, prog_name="vantage")
        assert done.exit_code == 0, done.output
        return done.output

    server = network.server
    where = ("--server", server.address, "--fingerprint", server.fingerprint)
    await asyncio.to_thread(run, "profile", "add", "here", *where)
    await asyncio.to_thread(run, "login", "--username", "rosa", "--password-stdin", stdin=PASSWORD)
    listed = await asyncio.to_thread(run, "dataset", "list", "--organization", "clara")
    assert "clara/clara-1  registry  postgresql  query" in listed
    shown = await asyncio.to_thread(run, "dataset", "get", "clara/clara-1", "registry")
    assert "cases: age (integer); 3 rows" in shown
    assert "age: integer from 18 to 99, required" in shown
    await clara.disconnect()


async def test_a_catalogue_that_is_too_large_is_left_out(client: AsyncClient, network: SealedNetwork) -> None:
    clara = ScriptedNode(network.server.channel(), network.nodes["clara"].metadata)
    wide = [pb.DatasetColumn(name=f"{number:0100}", type="x" * 1_000) for number in range(1_000)]
    await clara.hello(datasets=[pb.DatasetInfo(name="wide", format="csv", tables=[pb.DatasetTable(columns=wide)])])
    assert (await client.nodes.get("clara/clara-1")).datasets == (Dataset("wide", "csv"),)
    await clara.disconnect()
