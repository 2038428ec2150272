"""An algorithm whose answers fit no message: models as files, tables and lists, and a function that asks for them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from vantage.algorithm import Context, SubtaskResult, declaration_of, function

BLOCK = 1024 * 1024
MARK = b"marker-of-a-secret-model"


def blocks(megabytes: int) -> Iterator[bytes]:
    """What a model consists of."""
    for index in range(megabytes):
        yield (MARK + index.to_bytes(8, "big")) * (BLOCK // 32)


def digest_of(pieces: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for each in pieces:
        digest.update(each)
    return digest.hexdigest()


@function
def model(megabytes: int) -> Path:
    """A file."""
    path = Path(tempfile.mkdtemp()) / "model.bin"
    with path.open("wb") as file:
        file.writelines(blocks(megabytes))
    return path


@function
def table(megabytes: int) -> pa.Table:
    """A table of so many megabytes."""
    return pa.table({"weight": range(megabytes * BLOCK // 8)})


@function
def text(megabytes: int) -> str:
    """A text of so many megabytes."""
    return "x" * megabytes * BLOCK


@function
def ask(
    ctx: Context, names: list[str], organizations: list[str], megabytes: int, files: bool = False
) -> dict[str, Any]:
    """Ask organizations, function by function, and tell what came."""
    told = {}
    for name in names:
        into = Path(tempfile.mkdtemp()) if files else None
        results = ctx.subtask(name, {"megabytes": megabytes}, organizations=organizations, into=into)
        told[name] = {each.organization: _told(each) for each in results}
    return told


def _told(result: SubtaskResult) -> Any:
    match result.value:
        case Path() as path:
            with path.open("rb") as file:
                return [path.name, hashlib.file_digest(file, "sha256").hexdigest()]
        case pa.Table() as found:
            return [result.media_type, len(found), found.column("weight")[-1].as_py()]
        case str() | bytes() as value:
            return [result.media_type, len(value)]
        case _:
            return result.failure.reason if result.failure else None


DECLARATION = declaration_of(__name__)
