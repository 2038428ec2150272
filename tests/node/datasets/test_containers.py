"""Databases and hosts from a container that has no network: unchanged drivers over ports of its own."""

from __future__ import annotations

import asyncio
import json
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import openpyxl
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.node.datasets.test_connections import events, offer
from vantage.common.declaration import Declaration
from vantage.common.oci import ImageReference
from vantage.node.assembly import assemble
from vantage.node.images import VerifiedImage
from vantage.node.sources import CodeRequest, Tell, TrustedCode
from vantage.testing.engine import BASE_IMAGE, docker_client, leftovers
from vantage.testing.images import declare
from vantage.testing.postgres import Postgres
from vantage.testing.station import IMAGE, Station, assign, send

pytestmark = [pytest.mark.docker, pytest.mark.postgresql]

ALGORITHM = """
import os, socket, subprocess, sys, urllib.request
from pathlib import Path

from vantage.algorithm import Context, Database, DataFrame, function


@function(egress=["127.0.0.1:PORT"])
def look(ctx: Context, db: Database, df: DataFrame, folder: Path, book: DataFrame) -> dict:
    import psycopg

    with psycopg.connect(db.url) as connection:
        number = connection.execute("SELECT count(*) FROM cdm.person").fetchone()[0]
    program = "import psycopg; print(psycopg.connect('').execute('SELECT current_user').fetchone()[0])"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **db.environment()}, capture_output=True, text=True
    )
    # The proxy of the environment, as any HTTP client uses it for hosts but this one; and no way around it.
    del os.environ["no_proxy"], os.environ["NO_PROXY"]
    page = urllib.request.urlopen("http://127.0.0.1:PORT/page")
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=5)
        around = "reached"
    except OSError as problem:
        around = type(problem).__name__
    host, port = ctx.forward("127.0.0.1", PORT)
    with socket.create_connection((host, port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        status = connection.recv(15)
    environment = "\\n".join(f"{name}={value}" for name, value in os.environ.items())
    writable = [str(each) for each in Path("/data").rglob("*") if os.access(each, os.W_OK)]
    return {
        "count": number,
        "program": (done.stdout + done.stderr)[-200:].strip(),
        "cdm": [db.cdm_schema, db.cdm_version],
        "rows": len(df),
        "secret_in_environment": db.password in environment,
        "page": page.read().decode(),
        "around": around,
        "status": status.decode(),
        "files": sorted(str(each.relative_to(folder)) for each in folder.rglob("*")),
        "link": os.path.exists(folder / "out"),
        "writable": writable,
        "book": book["age"].tolist(),
    }
"""
DOCKERFILE = f"""\
FROM {BASE_IMAGE}
COPY packages/ algorithm.py /app/
ENV VANTAGE_MODULE=algorithm
"""
CDM = """
CREATE SCHEMA cdm;
CREATE TABLE cdm.person (person_id integer PRIMARY KEY, gender_concept_id integer, year_of_birth integer);
CREATE TABLE cdm.condition_occurrence (
  condition_occurrence_id integer, person_id integer, condition_concept_id integer);
INSERT INTO cdm.person SELECT n, 8507 + 25 * (n % 2), 1940 + n % 60 FROM generate_series(1, 500) AS n;
INSERT INTO cdm.condition_occurrence SELECT n, n, 4311499 FROM generate_series(1, 120) AS n;
GRANT USAGE ON SCHEMA cdm TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA cdm TO reader;
"""


CONCEPT = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}


@dataclass(frozen=True)
class Present:
    """Keeps ``CodeSource`` for an image that the engine has; a registry would be a minute of the test."""

    image_id: str
    declaration: Declaration

    async def trust(self, request: CodeRequest) -> TrustedCode:
        reference = ImageReference.parse(request.image)
        return TrustedCode(VerifiedImage(reference, self.image_id, self.declaration, ("author",)), self.declaration)

    async def fetch(self, trusted: TrustedCode, tell: Tell) -> None:
        pass


@pytest.fixture(scope="module")
def outside() -> Iterator[socket.socket]:
    """Where the host outside listens. The image declares its port, which is so taken before the image is built."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory, outside: socket.socket) -> Iterator[Present]:
    """An algorithm with a driver in its image, as its author would build it."""
    directory = tmp_path_factory.mktemp("image")
    (directory / "algorithm.py").write_text(ALGORITHM.replace("PORT", str(outside.getsockname()[1])))
    (directory / "Dockerfile").write_text(DOCKERFILE)
    # For the image's Python, in the versions that are tested here.
    machine = f"manylinux2014_{platform.machine()}"
    fitting = ["--only-binary", ":all:", "--python-version", "3.11", "--platform", machine]
    wanted = [f"{name}=={version(name)}" for name in ("psycopg", "psycopg-binary", "typing-extensions")]
    target = ["--no-deps", "--target", str(directory / "packages")]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *fitting, *target, *wanted], check=True, capture_output=True)
    declaration = declare(directory)
    with docker_client() as engine:
        built, _log = engine.images.build(path=str(directory), rm=True, labels={"org.vantage.test": str(directory)})
        yield Present(str(built.id), Declaration.parse(declaration))
        engine.images.remove(str(built.id), force=True)


async def serve_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\noutside")
    await writer.drain()
    writer.close()


async def test_a_container_without_network_reaches_what_it_was_given_and_nothing_else(
    station: Station,
    postgres: Postgres,
    present: Present,
    outside: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = outside.getsockname()[1]
    monkeypatch.setattr("vantage.testing.station.assemble", lambda config: replace(assemble(config), source=present))
    postgres.sql(CDM)
    book = openpyxl.Workbook()
    for row in (("age",), (61,), (74,)):
        book.active.append(row)
    book.save(station.directory / "book.xlsx")
    folder = station.directory / "images"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.png").write_bytes(b"1")
    (folder / "out").symlink_to(station.directory / "node-key.pem")
    offer(station, postgres, name="omop", format="omop", cdm_schema="cdm", cdm_version="5.4")
    ill = "SELECT p.year_of_birth FROM cdm.person p JOIN cdm.condition_occurrence c USING (person_id) "
    queries = {"ill": {"query": ill + "WHERE c.condition_concept_id = :concept", "parameters": {"concept": CONCEPT}}}
    offer(station, postgres, name="asked", format="omop", access="query", queries=queries)
    station.settings["datasets"] += [
        {"name": "images", "format": "folder", "path": "images"},
        {"name": "book", "format": "excel", "path": "book.xlsx"},
    ]
    station.settings |= {
        "executor": "docker",
        "allow_unsandboxed": False,
        "policy": {"egress": [{"host": "127.0.0.1", "port": port, "images": IMAGE.partition("@")[0]}]},
        "limits": {"memory": "512MiB"},
    }
    asked = json.dumps({"$data": {"df": {"query": "ill", "arguments": {"concept": 4311499}}}})
    datasets = {"db": "omop", "df": "asked", "folder": "images", "book": "book"}
    server = await asyncio.start_server(serve_page, sock=outside)
    with docker_client() as engine:
        async with server, station.running():
            session = await station.session()
            send(session, assign("look", asked, datasets=datasets))
            await session.receive("accepted")
            await session.receive("started")
            done = (await session.receive("completed")).completed
        assert leftovers(engine, station.label) == []
    assert done.failure.message == ""
    assert json.loads(done.result.inline) == {
        "count": 500,
        "program": "reader",
        "cdm": ["cdm", "5.4"],
        "rows": 120,
        "secret_in_environment": False,
        "page": "outside",
        "around": "ConnectionRefusedError",
        "status": "HTTP/1.1 200 OK",
        "files": ["a", "a/1.png", "out"],
        "link": False,
        "writable": [],
        "book": [61, 74],
    }
    assert {each["to"] for each in events(station, "run.connect")} == {"dataset:omop", f"127.0.0.1:{port}"}
    assert station.runs == []
