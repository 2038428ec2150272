"""Arguments and files as somebody in Python gives them: as JSON, and as files that an archive takes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vantage.common.argument_files import ArgumentFile
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


class GivenFiles:
    """Files of data parameters: a path stands for itself; bytes and tables are written, each once, to files that go
    away in the end. Blocks, so call it off the event loop."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._written: dict[int, tuple[Any, Path]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _problem: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was written."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def files_of(self, given: Mapping[str, Any]) -> tuple[ArgumentFile, ...]:
        """The files of values.

        Args:
            given: data parameter of the function -> path of a file, a ``pandas.DataFrame`` (without its index), a
                ``pyarrow.Table``, or bytes.

        Raises:
            InvalidArgumentError: ARGUMENTS_INVALID, it is nothing of that, or has a column that Arrow cannot hold.
            OSError: there is no room.
        """
        return tuple(self._file_of(parameter, value) for parameter, value in sorted(given.items()))

    def _file_of(self, parameter: str, value: Any) -> ArgumentFile:
        if isinstance(value, str | Path):
            return ArgumentFile(parameter, Path(value))
        if id(value) not in self._written:
            if self._directory is None:
                self._directory = Path(tempfile.mkdtemp(prefix="vantage-"))
            path = self._directory / str(len(self._written))
            if isinstance(value, bytes):
                path.write_bytes(value)
            else:
                path = path.with_suffix(".arrow")
                _write_table(value, path, parameter)
            self._written[id(value)] = value, path  # kept, so that its id stays its own
        return ArgumentFile(parameter, self._written[id(value)][1])


def _write_table(table: Any, path: Path, parameter: str) -> None:
    """Write a ``pandas.DataFrame`` (without its index) or ``pyarrow.Table`` as an Arrow file; blocks.

    Raises:
        InvalidArgumentError: ARGUMENTS_INVALID, it is none, or has a column that Arrow cannot hold.
        OSError: there is no room.
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
    except OSError:  # also one of Arrow's
        raise
    except (pyarrow.ArrowException, AttributeError, TypeError, ValueError) as problem:
        raise error(
            Reason.ARGUMENTS_INVALID,
            f"{parameter}: {type(table).__name__} is neither a file nor a table that Arrow can hold "
            f"({type(problem).__name__})",
        ) from None
