"""Runs an algorithm on files of several pretended organizations: no server, no node, no container."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NoReturn

from vantage.algorithm.context import Context, Failure, Subtask, SubtaskResult, taken
from vantage.algorithm.database import Database
from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.functions import Function, described, find
from vantage.algorithm.invoke import Answer, Source, failure_of, invoke
from vantage.algorithm.schema import invalid
from vantage.algorithm.sent_files import sent_files
from vantage.algorithm.values import received
from vantage.common.argument_files import FORMATS, Archive, ArgumentFile, unpack
from vantage.common.data_questions import split_reference
from vantage.common.declaration import validate_arguments

Data = Mapping[str, Mapping[str, str | Path]]


def run(
    function: Callable[..., Any],
    arguments: Mapping[str, Any] | None = None,
    data: Data | None = None,
    *,
    organization: str | None = None,
) -> Any:
    """Call a declared function as a node would.

    Arguments and results take the way over JSON and Arrow; a central function's subtasks run at the organizations of
    ``data``, one after the other.

    Args:
        function: declared function.
        arguments: JSON values.
        data: organization -> dataset name -> file, folder, or URL of a database. A data parameter reads the dataset of
            its own name, unless a subtask binds it to another.
        organization: where to run; the first of ``data`` when left out.

    Returns:
        The result as the researcher gets it: JSON values, or a pyarrow.Table.

    Raises:
        AlgorithmError: as in a node.
    """
    found = described(function)
    module = sys.modules[function.__module__]
    return _Network(module, data or {}).call(found, arguments or {}, organization)


def run_module(module: str, function: str, arguments: Mapping[str, Any], data: Data, organization: str | None) -> Any:
    """``run`` by names."""
    loaded = importlib.import_module(module)
    return _Network(loaded, data).call(find(loaded, function), arguments, organization)


class _Network:
    def __init__(self, module: ModuleType, data: Data) -> None:
        self._module = module
        self._data = data

    def call(self, function: Function, arguments: Mapping[str, Any], organization: str | None) -> Any:
        where = organization or next(iter(self._data), "local")
        answer = self._answer(function, arguments, where, {}, {})
        return received(answer.media_type, answer.blocks(), None, where)

    def _answer(
        self,
        function: Function,
        arguments: Mapping[str, Any],
        organization: str,
        datasets: Mapping[str, str],
        arrived: Mapping[str, Source],
    ) -> Answer:
        # Once over JSON, as on the wire: a tuple or a numpy number would not arrive as such.
        try:
            plain = json.loads(json.dumps(dict(arguments), allow_nan=False))
        except ValueError:
            raise invalid(f"{function.name}: JSON has no NaN and no infinity: give None, or leave it out") from None
        problems = validate_arguments(function.declared, plain)
        if problems:
            raise invalid(f"{function.name}: {'; '.join(problems)}")
        sources = {}
        for parameter in function.data.keys() - arrived.keys():
            name, _question = split_reference(datasets.get(parameter, parameter))
            path = self._data.get(organization, {}).get(name)
            if path is not None:
                sources[parameter] = _source(path)
        if unknown := arrived.keys() - function.data.keys():
            raise invalid(f"{function.name} has no data parameter {', '.join(sorted(unknown))}")
        context = Context(self, organization, tuple(self._data) or (organization,))
        return invoke(function, plain, {**sources, **arrived}, context)

    def progress(self, fraction: float, message: str) -> None:
        print(f"{fraction:4.0%} {message}", file=sys.stderr)

    def peers(self) -> NoReturn:
        raise AlgorithmError("runs talk to each other through their nodes: there are none in the local runner")

    def forward(self, host: str, port: int) -> tuple[str, int]:
        return host, port  # as it is: here is no box

    def subtask(self, subtask: Subtask) -> list[SubtaskResult]:
        function = find(self._module, subtask.function)
        with sent_files(subtask.files) as files:
            return self._ask(function, subtask, files)

    def _ask(self, function: Function, subtask: Subtask, files: Sequence[ArgumentFile]) -> list[SubtaskResult]:
        results: list[SubtaskResult] = []
        for each in subtask.organizations:
            organization = each.removeprefix("organizations/")
            answered = sum(result.failure is None for result in results)
            if subtask.quorum and answered >= subtask.quorum:
                results.append(_not_asked(organization, "QUORUM_REACHED"))
            elif subtask.on_failure == "cancel-rest" and answered < len(results):
                results.append(_not_asked(organization, "OTHER_RUN_FAILED"))
            else:
                results.append(self._one(function, subtask, organization, files))
        return results

    def _one(
        self, function: Function, subtask: Subtask, organization: str, files: Sequence[ArgumentFile]
    ) -> SubtaskResult:
        if organization not in self._data:
            return SubtaskResult(
                organization, failure=Failure("ORGANIZATION_NOT_MEMBER", f"there is no data of {organization}")
            )
        with _arrived(files) as arrived:  # until the answer is taken, which may be one of them
            try:
                answer = self._answer(function, subtask.arguments, organization, subtask.datasets, arrived)
            except Exception as problem:  # noqa: BLE001  # as in a node: a failure of a subtask is an answer
                failure = failure_of(problem, function.name)
                return SubtaskResult(organization, failure=Failure(failure.reason.name, failure.message))
            return taken(organization, answer.media_type, answer.blocks(), subtask.into)


def _not_asked(organization: str, reason: str) -> SubtaskResult:
    return SubtaskResult(organization, failure=Failure(reason, "the subtask ended before this organization was asked"))


@contextmanager
def _arrived(files: Sequence[ArgumentFile]) -> Iterator[Mapping[str, Source]]:
    """Files as they arrive at a node: by way of the archive that carries them."""
    if not files:
        yield {}
        return
    with TemporaryDirectory(prefix="vantage-") as directory:
        with Archive(b"{}", files).open() as stream:
            unpacked = unpack(stream, Path(directory), sys.maxsize)
        yield {each.parameter: Source(each.path, each.format) for each in unpacked.files}


def _source(place: str | Path) -> Source:
    """A file or folder by its name, or a database by its URL."""
    if "://" in str(place):
        try:
            return Source(Path(), "database", database=Database.at(str(place)))
        except ValueError as problem:
            raise invalid(str(problem)) from None
    path = Path(place)
    return Source(path, "folder" if path.is_dir() else (FORMATS | {".xlsx": "excel"}).get(path.suffix, "csv"))
