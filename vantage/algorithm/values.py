"""Results to bytes and back: JSON for values, Arrow IPC for tables, never pickle."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from vantage.algorithm.errors import AlgorithmError
from vantage.common.errors import Reason
from vantage.common.media_types import ARROW, BYTES, JSON, suffix_of

_FILES = {
    ".csv": "text/csv",
    ".json": JSON,
    ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.file",
}


def media_type_of(path: Path) -> str:
    """Media type of a file that is a result, by its suffix.

    Raises:
        AlgorithmError: RESULT_NOT_SERIALIZABLE, there is no such file.
    """
    if not path.is_file():
        raise _unserializable("result", "is a path at which there is no file")
    return _FILES.get(path.suffix.lower(), BYTES)


def encode(value: Any) -> tuple[str, bytes]:
    """A result as media type and bytes.

    A pandas.DataFrame (without its index) or pyarrow.Table becomes an Arrow stream, bytes stay bytes, all else JSON.
    JSON has no NaN and no infinity: NaN, NA and NaT mean "missing" and become null; infinity means that a computation
    went wrong and is refused.

    Raises:
        AlgorithmError: RESULT_NOT_SERIALIZABLE, says where in the result, not what.
    """
    match _library(value), type(value).__name__:
        case ("pandas", "DataFrame") | ("pyarrow", "Table"):
            return ARROW, _encode_table(value)
    if isinstance(value, bytes):
        return BYTES, value
    return JSON, json.dumps(plain(value, "result"), separators=(",", ":"), allow_nan=False).encode()


def plain(value: Any, what: str) -> Any:
    """A value as JSON has it: numbers and arrays of numpy become numbers and lists; see ``encode``.

    Args:
        value: what is to be written as JSON.
        what: what it is called in messages.

    Raises:
        AlgorithmError: RESULT_NOT_SERIALIZABLE, says where in it.
    """
    try:
        return _plain(value, what)
    except RecursionError:
        raise _unserializable(what, "is nested too deeply") from None


def decode(media_type: str, content: bytes) -> Any:
    """What ``encode`` made bytes of; a table comes back as pyarrow.Table, an unknown media type as bytes.

    Raises:
        ValueError: the bytes are not what the media type says.
        OSError: likewise.
        RecursionError: they are nested too deeply.
    """
    if media_type == JSON:
        return json.loads(content)
    if media_type == ARROW:
        import pyarrow as pa

        try:
            with pa.ipc.open_stream(content) as reader:
                return reader.read_all()
        except pa.ArrowException as problem:  # some of them are of other kinds than ValueError
            raise ValueError(f"no Arrow stream: {type(problem).__name__}") from problem
    return content


def received(media_type: str, blocks: Iterable[bytes], into: Path | None, name: str) -> Any:
    """What ``encode`` made blocks of bytes of, or the file that holds them; of a file only a block is in memory.

    Args:
        media_type: of the bytes.
        blocks: the bytes.
        into: directory for the file; None for the value itself.
        name: of the file, without the suffix, which follows from the media type.

    Raises:
        ValueError: the bytes are not what the media type says.
        OSError: likewise, or the file cannot be written.
    """
    if into is None:
        buffer = BytesIO()
        buffer.writelines(blocks)
        return decode(media_type, buffer.getvalue())
    path = into / f"{name}{suffix_of(media_type)}"
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.writelines(blocks)
        return part.replace(path)  # complete or not at all
    finally:
        part.unlink(missing_ok=True)


def _encode_table(value: Any) -> bytes:
    import pyarrow as pa

    try:
        table = pa.Table.from_pandas(value, preserve_index=False) if _library(value) == "pandas" else value
    except (pa.ArrowException, TypeError, ValueError):
        raise _unserializable("result", "has a column that Arrow cannot hold") from None
    # pandas' own metadata would tell of the index, which is not part of the result.
    table = table.replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _plain(value: Any, path: str) -> Any:
    if value is None or isinstance(value, bool) or type(value) in (int, str):
        return value
    library, name = _library(value), type(value).__name__
    if library == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist(), path)
    if library == "pandas" and name in ("NAType", "NaTType"):
        return None
    if isinstance(value, float):
        if math.isinf(value):
            raise _unserializable(path, "is infinite")
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise _unserializable(path, f"has a key of type {type(key).__name__}: use str")
        return {key: _plain(each, f"{path}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{path}[{index}]") for index, each in enumerate(value)]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            each.name: _plain(getattr(value, each.name), f"{path}.{each.name}") for each in dataclasses.fields(value)
        }
    raise _unserializable(path, f"has the type {name}: give JSON values; a result may be a table or bytes, too")


def _library(value: Any) -> str:
    # By name, so that an algorithm without tables never imports pandas.
    return type(value).__module__.partition(".")[0]


def _unserializable(path: str, why: str) -> AlgorithmError:
    return AlgorithmError(f"{path} {why}", reason=Reason.RESULT_NOT_SERIALIZABLE)
