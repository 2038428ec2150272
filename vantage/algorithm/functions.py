"""Functions that an algorithm declares: only these can be called."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints, overload

from vantage.algorithm.context import Context
from vantage.algorithm.database import Database
from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.schema import convert, invalid, schema_of
from vantage.common import declaration
from vantage.common.errors import Reason
from vantage.common.hosts import join_host, split_host

if TYPE_CHECKING:
    from pandas import DataFrame as DataFrame
else:

    class DataFrame:
        """Annotation of a data parameter: the function gets a ``pandas.DataFrame``.

        A stand-in, so that an algorithm starts without pandas until it reads data.
        """


_Callable = TypeVar("_Callable", bound=Callable[..., Any])
_ATTRIBUTE = "__vantage_function__"


@dataclass(frozen=True)
class Function:
    """A declared function.

    Attributes:
        hints: argument -> type.
        data: data parameter -> "pandas", "arrow", "path" or "database".
        context: the parameter that takes the context.
    """

    name: str
    call: Callable[..., Any]
    hints: Mapping[str, Any]
    data: Mapping[str, str]
    context: str | None
    declared: declaration.Function

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as the types that the function asks for.

        Raises:
            AlgorithmError: ARGUMENTS_INVALID.
        """
        for name in given:
            if name not in self.hints:
                raise invalid(f"{self.name} has no argument {name!r}; it has {', '.join(self.hints) or 'none'}")
        for name in self.declared.arguments["required"]:
            if name not in given:
                raise invalid(f"{self.name} needs the argument {name!r}")
        return {name: convert(self.hints[name], value, name) for name, value in given.items()}


@overload
def function(call: _Callable) -> _Callable: ...


@overload
def function(*, gpus: int = 0, egress: Sequence[str] = ()) -> Callable[[_Callable], _Callable]: ...


def function(
    call: _Callable | None = None, *, gpus: int = 0, egress: Sequence[str] = ()
) -> _Callable | Callable[[_Callable], _Callable]:
    """Declare a function: researchers, and subtasks, may call it by its name.

    Its arguments and their JSON Schema come from the type hints, their descriptions from the docstring ("Args:"). A
    parameter annotated ``Context`` gets the context; one annotated ``DataFrame`` (pandas), ``pyarrow.Table``,
    ``pathlib.Path`` or ``Database`` is a data parameter and gets a dataset of the node.

    Args:
        call: the function; left out in ``@function(gpus=1)``.
        gpus: graphics processors that each run of it needs; nodes whose admins offer fewer refuse it.
        egress: hosts that the function connects to, ``HOST:PORT``: ``@function(egress=["api.example.org:443"])``. Nodes
            allow none unless their admin lists them.

    Returns:
        The function itself: it can still be called directly.

    Raises:
        TypeError: an argument has no type hint, or one that JSON cannot carry; or a host is malformed.
    """

    def declare(call: _Callable) -> _Callable:
        setattr(call, _ATTRIBUTE, _describe(call, gpus, egress))
        return call

    return declare if call is None else declare(call)


def described(call: Callable[..., Any]) -> Function:
    """What ``function`` found out about a function.

    Raises:
        AlgorithmError: FUNCTION_UNKNOWN, it is not declared.
    """
    found = getattr(call, _ATTRIBUTE, None)
    if not isinstance(found, Function):
        raise _unknown(getattr(call, "__name__", str(call)), ())
    return found


def functions_of(module: ModuleType) -> dict[str, Function]:
    """All functions that a module declares, also those that it imports from others."""
    found = (getattr(each, _ATTRIBUTE, None) for each in vars(module).values() if inspect.isfunction(each))
    return {each.name: each for each in found if isinstance(each, Function)}


def find(module: ModuleType, name: str) -> Function:
    """A declared function by name.

    Raises:
        AlgorithmError: FUNCTION_UNKNOWN.
    """
    functions = functions_of(module)
    if name not in functions:
        raise _unknown(name, functions)
    return functions[name]


def declare(module: ModuleType) -> declaration.Declaration:
    """The declaration of a module, for the image label.

    Raises:
        AlgorithmError: it declares no function.
    """
    functions = functions_of(module)
    if not functions:
        raise AlgorithmError(f"the module {module.__name__} declares no function: put @function above one")
    return declaration.Declaration.of(each.declared for each in functions.values())


def declaration_of(module: str) -> dict[str, Any]:
    """The declaration as a document, for the last line of a module: ``DECLARATION = declaration_of(__name__)``.

    A node that runs modules without a container, for development, reads it there, since there is no image label.
    """
    return declare(sys.modules[module]).dump()


def _unknown(name: str, known: Any) -> AlgorithmError:
    names = ", ".join(sorted(known)) or "none"
    return AlgorithmError(f"{name!r} is not declared; declared are: {names}", reason=Reason.FUNCTION_UNKNOWN)


def _describe(call: Callable[..., Any], gpus: int, egress: Sequence[str]) -> Function:
    try:
        hosts = tuple(join_host(*split_host(each)) for each in egress)
    except ValueError as problem:
        raise TypeError(f"{call.__name__}: a host of egress {problem}") from None
    hints = get_type_hints(call)
    summary, descriptions = _read_docstring(inspect.getdoc(call) or "")
    arguments: dict[str, Any] = {}
    data: dict[str, str] = {}
    properties: dict[str, Any] = {}
    required: list[str] = []
    context = None
    for parameter in inspect.signature(call).parameters.values():
        name = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{call.__name__}: {name!r} must be a parameter with a name")
        if name not in hints:
            raise TypeError(f"{call.__name__}: the parameter {name!r} needs a type hint")
        hint = hints[name]
        if hint is Context:
            context = name
        elif kind := _data_kind(hint):
            data[name] = kind
        else:
            schema = schema_of(hint)
            if name in descriptions:
                schema["description"] = descriptions[name]
            if parameter.default is parameter.empty:
                required.append(name)
            else:
                schema["default"] = parameter.default
            arguments[name] = hint
            properties[name] = schema
    declared = declaration.Function(
        name=call.__name__,
        description=summary,
        kind="central" if context and not data else "partial",
        arguments={
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
        data=tuple(declaration.DataParameter(name, descriptions.get(name, "")) for name in data),
        gpus=gpus,
        egress=hosts,
    )
    return Function(call.__name__, call, arguments, data, context, declared)


def _data_kind(hint: Any) -> str | None:
    # By name: a comparison with pandas.DataFrame would import pandas.
    if hint is DataFrame:
        return "pandas"
    if hint is Path:
        return "path"
    if hint is Database:
        return "database"
    match getattr(hint, "__module__", "").partition(".")[0], getattr(hint, "__name__", ""):
        case "pandas", "DataFrame":
            return "pandas"
        case "pyarrow", "Table":
            return "arrow"
    return None


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """First paragraph, and the lines below "Args:"."""
    summary = " ".join(text.split("\n\n", 1)[0].split())
    _, _, rest = text.partition("\nArgs:\n")
    descriptions: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        if found := re.match(r" {4}(\w+)(?: \([^)]*\))?: (.*)", line):
            name = found[1]
            descriptions[name] = found[2].strip()
        elif name and line.strip():
            descriptions[name] += " " + line.strip()
        else:
            name = ""
    return summary, descriptions
