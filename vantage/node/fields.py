"""Kinds of values in a configuration, as people write them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from vantage.common import names

_UNITS = {"": 1, "b": 1, "k": 1024, "kib": 1024, "m": 1024**2, "mib": 1024**2, "g": 1024**3, "gib": 1024**3}
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def _amount(text: object, units: dict[str, int], example: str) -> object:
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"must be a number, or a text like {example}")
    return int(float(match[1]) * units[match[2].lower()])


def _named(collection: str) -> AfterValidator:
    """Accept ``clara`` and ``organizations/clara``, keep the latter."""

    def check(text: str) -> str:
        full = text if "/" in text else f"{collection}/{text}"
        if not names.is_valid(full, collection):
            raise ValueError(f"must be a name like {collection}/some-name, or its last part")
        return full

    return AfterValidator(check)


Bytes = Annotated[int, BeforeValidator(lambda value: _amount(value, _UNITS, "512MiB")), Field(gt=0)]
Seconds = Annotated[int, BeforeValidator(lambda value: _amount(value, _SECONDS, "30m")), Field(gt=0)]
OrganizationName = Annotated[str, _named("organizations")]
CollaborationName = Annotated[str, _named("collaborations")]
NodeName = Annotated[str, _named("organizations/nodes")]


class Section(BaseModel):
    """A part of a configuration: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
