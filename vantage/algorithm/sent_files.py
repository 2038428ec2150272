"""Files that a function sends with a subtask: the same checks with a node and in the local runner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.invoke import BLOCK
from vantage.common.argument_files import Archive, ArgumentFile
from vantage.common.argument_values import GivenFiles
from vantage.common.errors import Reason, VantageError


@contextmanager
def sent_files(given: Mapping[str, Any]) -> Iterator[tuple[ArgumentFile, ...]]:
    """What is given for data parameters, as files; those that were written for that go away with the context.

    Args:
        given: see ``Context.subtask``.

    Raises:
        AlgorithmError: ARGUMENTS_INVALID, a value is neither a file, nor a table, nor bytes, or a name or a suffix is
            none for a file.
        OSError: there is no room for a table.
    """
    with GivenFiles() as values:
        try:
            files = values.files_of(given)
            Archive(b"{}", files)  # checks them
        except VantageError as problem:
            raise AlgorithmError(f"files of a subtask: {problem.message}", reason=Reason.ARGUMENTS_INVALID) from None
        yield files


def blocks_of(arguments: bytes, files: Sequence[ArgumentFile]) -> Iterator[bytes]:
    """Arguments as a node takes them: JSON, or an archive when there are files, in blocks; one is in memory.

    Raises:
        OSError: a file is not what it was any more.
    """
    with Archive(arguments, files).open() if files else BytesIO(arguments) as stream:
        while block := stream.read(BLOCK):
            yield block
