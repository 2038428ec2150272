"""An algorithm that outlives its node: it tells who it is, waits until its data says that it may go on, and answers."""

from __future__ import annotations

import socket
import time
import uuid
from pathlib import Path

from vantage.algorithm import Context, Database, function


def _await(table: Path, word: str) -> None:
    """A container has no other door than the node, which is away: it has to look."""
    while word not in table.read_text():
        time.sleep(0.02)


@function
def steady(table: Path, size: int = 0) -> dict[str, str]:
    """Wait for the word "go"; answer who this is, with so many more characters."""
    me = uuid.uuid4().hex
    print(f"began {me}", flush=True)
    _await(table, "go")
    print(f"went on {me}", flush=True)
    return {"me": me, "padding": "x" * size}


@function
def reaching(table: Path, db: Database) -> dict[str, object]:
    """Reach a database, wait for the word, and reach it again."""
    print("began", flush=True)
    answers = [_ask_for_tls(db)]
    print("reached", flush=True)
    _await(table, "go")
    answers.append(_ask_for_tls(db))
    return {"answers": answers, "password": Path("/data/db/password").read_text() == db.password}


def _ask_for_tls(db: Database) -> str:
    """The first message of PostgreSQL's protocol: a server without TLS answers N."""
    with socket.create_connection(db.address) as connection:
        connection.sendall(bytes.fromhex("0000000804d2162f"))
        return connection.recv(1).decode()


@function
def sending(table: Path, ctx: Context) -> str:
    """Send another organization a file, and answer its answer."""
    (answer,) = ctx.subtask("steady", organizations=["dora"], files={"table": b"go"})
    return str(answer.get())


@function
def asking(table: Path, ctx: Context) -> dict[str, str]:
    """Ask another organization, and answer its answer."""
    me = uuid.uuid4().hex
    print(f"began {me}", flush=True)
    (answer,) = ctx.subtask("steady", organizations=["dora"], datasets={"table": "lung"})
    return {"me": me, "answer": str(answer.get())}
