"""A YAML file read together with the places of its values, so that an error can point at the line."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vantage.common.errors import Reason, error

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[int | str, ...]

MAX_BYTES = 1024 * 1024
"""A configuration is written by a person; anything larger is the wrong file."""


class _Loader(yaml.SafeLoader):
    """Refuses what YAML silently accepts: the same key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            text = key.value
            if text in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {text!r} is here for the second time (first in line {seen[text]})",
                    problem_mark=key.start_mark,
                )
            seen[text] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class YamlSource:
    """A parsed YAML document.

    Attributes:
        path: the file.
        data: what it says.
    """

    path: Path
    data: Any
    _tree: yaml.Node | None

    @classmethod
    def read(cls, path: Path) -> YamlSource:
        """Read a file.

        Raises:
            ConfigurationError: not readable, too large, or not YAML; the message has file and line.
        """
        try:
            content = path.read_bytes()
        except OSError as problem:
            hint = ": create it with 'vantage node init'" if isinstance(problem, FileNotFoundError) else ""
            raise error(
                Reason.CONFIGURATION_INVALID, f"{path}: cannot be read: {problem.strerror}{hint}", path=str(path)
            ) from problem
        if len(content) > MAX_BYTES:
            raise error(Reason.CONFIGURATION_INVALID, f"{path}: larger than 1 MiB: is this the right file?")
        try:
            text = content.decode()
            return cls(path, yaml.load(text, _Loader), yaml.compose(text, _Loader))  # noqa: S506  # a SafeLoader
        except UnicodeDecodeError:
            raise error(Reason.CONFIGURATION_INVALID, f"{path}: not UTF-8 text") from None
        except yaml.MarkedYAMLError as problem:
            mark = problem.problem_mark or problem.context_mark
            place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
            what = problem.problem or problem.context or "malformed"
            raise error(Reason.CONFIGURATION_INVALID, f"{path}{place}: not valid YAML: {what}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as problem:
            raise error(Reason.CONFIGURATION_INVALID, f"{path}: not valid YAML: {problem}") from None

    def place(self, location: Sequence[int | str]) -> str:
        """``file:line`` of the value at a location, or of the nearest that exists around it."""
        node, line = self._tree, 1
        for step in location:
            child: yaml.Node | None = None
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if key.value == str(step):
                        line, child = key.start_mark.line + 1, value
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                child = node.value[step]
                line = child.start_mark.line + 1
            if child is None:
                break
            node = child
        return f"{self.path}:{line}"

    def parse(self, model: type[Model]) -> Model:
        """Check the document against a model.

        Raises:
            ConfigurationError: every problem on a line of its own: file:line, path of the field, what is allowed.
        """
        if not isinstance(self.data, dict):
            allowed = ", ".join(_keys(model))
            raise error(Reason.CONFIGURATION_INVALID, f"{self.path}:1: must be a mapping with the keys {allowed}")
        try:
            return model.model_validate(self.data)
        except ValidationError as problems:
            lines = [self._describe(model, each) for each in problems.errors(include_url=False)]
            raise error(Reason.CONFIGURATION_INVALID, "\n".join(lines), path=str(self.path)) from None

    def _describe(self, model: type[BaseModel], problem: ErrorDetails) -> str:
        location = problem["loc"]
        field = ".".join(str(step) for step in location) or "the file"
        match problem["type"]:
            case "extra_forbidden":
                owner = _model_at(model, location[:-1])
                allowed = _keys(owner) if owner is not None else []
                close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
                hint = f": did you mean {close[0]!r}?" if close else f": allowed are {', '.join(allowed)}"
                what = f"unknown key{hint}"
            case "missing":
                what = "is missing"
            case "value_error":
                what = str(problem["ctx"]["error"]) if "ctx" in problem else problem["msg"]
            case _:
                # Never the value itself: it may be a secret pasted into the wrong place.
                what = problem["msg"][:1].lower() + problem["msg"][1:]
        return f"{self.place(location)}: {field}: {what}"


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model that describes the mapping at a location."""
    current: Any = model
    for step in location:
        if _is_model(current):
            field = current.model_fields.get(str(step))
            current = field.annotation if field is not None else None
        elif typing.get_args(current):
            current = next((each for each in typing.get_args(current) if _is_model(each)), None)
        current = _strip_optional(current)
    return current if _is_model(current) else None


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _strip_optional(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return next((each for each in typing.get_args(annotation) if each is not type(None)), None)
    return annotation
