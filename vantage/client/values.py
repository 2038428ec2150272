"""Values and the bytes that carry them: JSON, Arrow, and whatever else has a media type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vantage.common.errors import Reason, error


def encode_arguments(arguments: Mapping[str, Any] | None) -> bytes:
    """Arguments as a JSON object.

    Raises:
        InvalidArgumentError: ARGUMENTS_INVALID, JSON does not have such values.
    """
    try:
        return json.dumps(dict(arguments or {}), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise error(
            Reason.ARGUMENTS_INVALID,
            f"the arguments cannot be written as JSON: {problem}: use numbers, texts, booleans, lists and dictionaries",
        ) from None


def write_table(table: Any, path: Path, parameter: str) -> None:
    """Write a ``pandas.DataFrame`` (without its index) or ``pyarrow.Table`` as an Arrow file; blocks.

    Raises:
        InvalidArgumentError: ARGUMENTS_INVALID, it is none, or has a column that Arrow cannot hold.
    """
    try:
        import pyarrow
    except ImportError:
        raise error(
            Reason.ARGUMENTS_INVALID, f"{parameter}: give the path of a file, or install pyarrow to send tables"
        ) from None
    try:
        if not isinstance(table, pyarrow.Table):
            table = pyarrow.Table.from_pandas(table, preserve_index=False)
        table = table.replace_schema_metadata(None)  # pandas' own would tell of the index
        with pyarrow.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    except (AttributeError, TypeError, ValueError) as problem:  # Arrow's errors are ValueErrors
        raise error(
            Reason.ARGUMENTS_INVALID,
            f"{parameter}: {type(table).__name__} is neither a file nor a table that Arrow can hold "
            f"({type(problem).__name__})",
        ) from None


def decode(media_type: str, content: bytes) -> Any:
    """A value: JSON becomes Python values, an Arrow stream a ``pyarrow.Table``, anything else stays bytes.

    Raises:
        InvalidArgumentError: RESULT_NOT_SERIALIZABLE, the bytes are not what the media type says.
    """
    try:
        match media_type.partition(";")[0].strip().lower():
            case "application/json":
                return json.loads(content)
            case "application/vnd.apache.arrow.stream":
                import pyarrow

                with pyarrow.ipc.open_stream(pyarrow.py_buffer(content)) as reader:
                    return reader.read_all()
            case _:
                return content
    except (ValueError, RecursionError, OSError) as problem:  # pyarrow's errors are ValueError or OSError
        raise error(
            Reason.RESULT_NOT_SERIALIZABLE,
            f"the answer is not {media_type}, as the algorithm says: ask its author ({type(problem).__name__})",
        ) from None
