"""The answers of a task: printed, or written to files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vantage.client.cli.nouns import short
from vantage.client.cli.output import Output, plain, text
from vantage.common import exits
from vantage.common.text import printable

if TYPE_CHECKING:
    from vantage.client import Result

MAX_ROWS = 20
"""Rows of a table of an answer on the screen; --save writes them all."""


def show(
    output: Output,
    task: str,
    state: str,
    results: Sequence[Result],
    save: Path | None,
    *,
    quorum: int = 0,
    sealed: bool = False,
) -> None:
    """Print or save the answers of an ended task; raises ``Exit`` with FAILED when too few organizations gave one."""
    if save is not None:
        saved = _save_all(results, save, sealed=sealed)
    else:
        saved = {each.run: each.value for each in results if isinstance(each.value, Path)}
    if output.is_json:
        output.document(
            {
                "task": task,
                "state": state,
                "quorum": quorum,
                "results": [_document(each, saved.get(each.run)) for each in results],
            }
        )
    else:
        for result in results:
            _print(output, result, saved.get(result.run), titled=len(results) > 1)
        if standing := _standing(results):
            output.note(standing)
    without = [short(each.organization) for each in results if not each.ok]
    # Counted here, not by the server: what it calls an answer may be none.
    if state == "SUCCEEDED" and len(results) - len(without) >= (quorum or len(results)):
        if without and not output.is_json:
            output.note(f"{len(results) - len(without)} of {len(results)} have answered; the task asks for {quorum}")
        return
    if not output.is_json:
        whom = ", ".join(without)
        output.note(f"Error: no answer from {whom}" if without else f"Error: the task is {state.lower()}")
    raise click.exceptions.Exit(exits.FAILED)


def _document(result: Result, saved: Path | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "organization": result.organization,
        "node": result.node,
        "run": result.run,
        "state": result.state,
        "media_type": result.media_type,
        "failure": result.failure,
        "verified": result.verified,
    }
    if saved is not None:
        document["saved"] = saved
    else:
        document["value"] = result.value.to_pylist() if _is_table(result.value) else result.value
    return document


def _print(output: Output, result: Result, saved: Path | None, *, titled: bool) -> None:
    who = short(result.organization)
    if result.failure is not None:
        reason, message = result.failure.reason, result.failure.message
        click.echo(f"{who}: {text(result.state)}: {printable(message)} [{printable(reason)}]")
        return
    if saved is not None:
        click.echo(f"{who}: saved as {saved}")
        return
    if titled:
        click.echo(f"{who}:")
    value = result.value
    if _is_table(value):
        head = value.slice(0, MAX_ROWS)
        output.rows(value.column_names, [[text(cell) for cell in row.values()] for row in head.to_pylist()])
        if value.num_rows > MAX_ROWS:
            output.note(f"… {value.num_rows - MAX_ROWS:,} more rows: --save FILE keeps all {value.num_rows:,}")
    elif isinstance(value, bytes):
        click.echo(f"{len(value):,} bytes of {printable(result.media_type)}: --save FILE keeps them")
    elif rows := _records(value):
        output.rows(list(rows[0]), [[text(cell) for cell in row.values()] for row in rows[:MAX_ROWS]])
        if len(rows) > MAX_ROWS:
            output.note(f"… {len(rows) - MAX_ROWS:,} more rows: --save FILE keeps all {len(rows):,}")
    else:
        output.document(value)


def _standing(results: Sequence[Result]) -> str:
    """Which answers and failures are signed by nodes, and which are only what the server says."""
    signed = [short(each.organization) for each in results if each.verified]
    told = [short(each.organization) for each in results if not each.verified and not _refused(each)]
    parts = [f"verified, signed by the node: {', '.join(signed)}"] if signed else []
    parts += [f"unverified, the server's word: {', '.join(told)}"] if told else []
    return "; ".join(parts)


def _refused(result: Result) -> bool:
    return result.failure is not None and result.failure.reason == "RESULT_UNVERIFIED"


def _records(value: object) -> list[Mapping[str, Any]]:
    """A list of flat objects with the same keys, which reads well as a table; else nothing."""
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) and each for each in value):
        return []
    keys = list(value[0])
    flat = all(
        list(each) == keys and not any(isinstance(cell, dict | list) for cell in each.values()) for each in value
    )
    return value if flat else []


def _is_table(value: object) -> bool:
    # By name: importing pyarrow to look at a number takes longer than the rest of the command.
    return type(value).__module__.startswith("pyarrow") and hasattr(value, "to_pylist")


def _save_all(results: Sequence[Result], target: Path, *, sealed: bool) -> dict[str, Path]:
    """Write the answers: one to the file, several into the directory, each named after its organization."""
    answers = [each for each in results if each.ok]
    if len(results) == 1 and not target.is_dir():
        return {each.run: _save(each.value, target) for each in answers}
    if target.exists() and not target.is_dir():
        raise click.UsageError(f"--save {target} is a file, and {len(results)} organizations answer: name a directory")
    target.mkdir(parents=True, exist_ok=True)
    return {
        each.run: _save(each.value, target / f"{short(each.organization)}{_suffix(each, sealed)}") for each in answers
    }


def _suffix(result: Result, sealed: bool) -> str:
    if sealed and result.verified:
        return ".age"
    if _is_table(result.value):
        return ".arrow"
    return ".bin" if isinstance(result.value, bytes) else ".json"


def _save(value: Any, path: Path) -> Path:
    """Write one answer; a table as its suffix says: .parquet, .csv, or else an Arrow file."""
    if _is_table(value):
        import pyarrow
        from pyarrow import csv, parquet

        match path.suffix:
            case ".parquet":
                parquet.write_table(value, path)
            case ".csv":
                csv.write_csv(value, path)
            case _:
                with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, value.schema) as writer:
                    writer.write_table(value)
    elif isinstance(value, bytes):
        path.write_bytes(value)
    else:
        path.write_text(json.dumps(plain(value), ensure_ascii=False, indent=2) + "\n", "utf-8")
    return path
