"""Functions that read datasets, as an author would write them."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from vantage.algorithm import Database, DataFrame, declaration_of, function


@function
def through_psycopg(db: Database, minimum: int) -> dict[str, Any]:
    """The driver as it is."""
    import psycopg

    with psycopg.connect(db.url) as connection:
        row = connection.execute("SELECT count(*), avg(age)::float FROM cases WHERE age >= %s", [minimum]).fetchone()
        assert row is not None
        who = connection.execute("SELECT session_user").fetchone()
    # Another connection over the same port, and one by the environment alone.
    with psycopg.connect(db.url) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)
    done = subprocess.run(
        ["psql", "-qtAc", "SELECT count(*) FROM cases"],
        env={**os.environ, **db.environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    return {"count": row[0], "mean": row[1], "who": who, "psql": int(done.stdout)}


@function
def surroundings(db: Database, df: DataFrame) -> dict[str, Any]:
    """What a run that has a database sees of it."""
    return {"environment": dict(os.environ), "shown": repr(db), "columns": list(df.columns)}


@function
def through_another_parameter(df: DataFrame) -> str:
    """Wants a connection that its task does not give it."""
    from vantage.algorithm.ports import Ports
    from vantage.algorithm.streams import PeerError
    from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb

    ports = Ports(f"unix:{os.environ['VANTAGE_SOCKET']}", os.environ["VANTAGE_TOKEN"])
    reasons = []
    for parameter in ("df", "db"):
        try:
            ports._call(ports.dial(pb.DialTarget(dataset=pb.DatasetTarget(parameter=parameter))))
        except PeerError as problem:
            reasons.append(problem.code.name)
    port = ports.open(pb.DialTarget(dataset=pb.DatasetTarget(parameter="db")), "nowhere")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        try:
            reasons.append("ended" if connection.recv(1) == b"" else "answered")
        except ConnectionResetError:
            reasons.append("broken")
    ports.close()
    return " ".join(reasons)


@function
def rows(df: DataFrame) -> dict[str, Any]:
    """What a table holds."""
    return {
        "rows": len(df),
        "columns": list(df.columns),
        "types": [str(each) for each in df.dtypes],
        "first": df.head(1).astype(str).to_dict("records"),
    }


@function
def listing(folder: Path) -> list[str]:
    """What a folder holds."""
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


DECLARATION = declaration_of(__name__)
