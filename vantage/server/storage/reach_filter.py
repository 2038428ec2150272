"""Lists show what single reads show: the one translation of ``Reach`` into a condition over rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, false, or_, true

from vantage.server.domain.permissions import Reach

Column = ColumnElement[Any]


def in_reach(
    reach: Reach,
    *,
    organization: Column | None = None,
    collaboration: Column | Callable[[list[str]], ColumnElement[bool]] | None = None,
    creator: Column | None = None,
) -> ColumnElement[bool]:
    """The rows that ``reach.covers`` covers.

    Args:
        reach: what is reached.
        organization: column of the owner's organization; None when the objects have none.
        collaboration: column of the owner's collaboration, or a condition that some of these are among them.
        creator: column of who made it.
    """
    if reach.everything:
        return true()
    conditions: list[ColumnElement[bool]] = []
    if reach.collaborations and collaboration is not None:
        wanted = sorted(reach.collaborations)
        conditions.append(collaboration(wanted) if callable(collaboration) else collaboration.in_(wanted))
    if reach.organization is not None and organization is not None:
        conditions.append(organization == reach.organization)
    if reach.creator is not None and creator is not None:
        conditions.append(creator == reach.creator)
    return or_(*conditions) if conditions else false()
