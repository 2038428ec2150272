"""What a run's results must meet before they leave: of all rules that speak of it, the strictest. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vantage.common.repository_patterns import matches
from vantage.node.release.looking import Look

if TYPE_CHECKING:
    from vantage.node.config import ReleaseRule

NONE, FIRST_RUN, EVERY_RESULT = "none", "first_run", "every_result"


@dataclass(frozen=True)
class Terms:
    """For one run.

    Attributes:
        max_bytes: of the result, and of the arguments of each question that the run asks; None: as limits say.
        media_types: what the result may be; None: anything.
        looks: what is looked at inside of it.
        first_run: a person has to approve of the image and function before it runs here for the first time.
        every_result: a person has to approve of whatever leaves.
    """

    max_bytes: int | None = None
    media_types: frozenset[str] | None = None
    looks: tuple[Look, ...] = ()
    first_run: bool = False
    every_result: bool = False

    @property
    def guarded(self) -> bool:
        """Whether what leaves is looked at: then nothing leaves by a way on which it cannot be."""
        return bool(self.looks) or self.media_types is not None or self.every_result


FREE = Terms()


def terms_of(rules: Iterable[ReleaseRule], repository: str, function: str, datasets: Collection[str]) -> Terms:
    """Put the rules together that speak of a run.

    Args:
        rules: of the policy.
        repository: of the image.
        function: what is called.
        datasets: what it reads.
    """
    found = [
        rule
        for rule in rules
        if matches(rule.repository, repository)
        and (rule.functions is None or function in rule.functions)
        and (rule.datasets is None or not rule.datasets.isdisjoint(datasets))
    ]
    sizes = [rule.max_result_bytes for rule in found if rule.max_result_bytes is not None]
    types = [frozenset(rule.media_types) for rule in found if rule.media_types is not None]
    return Terms(
        max_bytes=min(sizes, default=None),
        media_types=frozenset.intersection(*types) if types else None,
        looks=tuple(
            Look(rule.columns, rule.counts, rule.minimum_count or 0, rule.small_counts == "suppress")
            for rule in found
            if rule.columns is not None or rule.counts
        ),
        first_run=any(rule.approval == FIRST_RUN for rule in found),
        every_result=any(rule.approval == EVERY_RESULT for rule in found),
    )


def describe(rule: ReleaseRule) -> str:
    """A rule in one line, for the node's admin."""
    whose = [rule.repository]
    if rule.functions is not None:
        whose.append(f"functions {', '.join(rule.functions)}")
    if rule.datasets is not None:
        whose.append(f"datasets {', '.join(sorted(rule.datasets))}")
    demands = []
    if rule.counts:
        then = "what is about fewer is blanked" if rule.small_counts == "suppress" else "else nothing leaves"
        demands.append(f"at least {rule.minimum_count} in {', '.join(rule.counts)}, {then}")
    if rule.columns is not None:
        demands.append(f"only {', '.join(rule.columns) or 'nothing'}")
    if rule.media_types is not None:
        demands.append(f"of type {', '.join(rule.media_types) or 'none'}")
    if rule.max_result_bytes is not None:
        demands.append(f"at most {rule.max_result_bytes} bytes")
    if rule.approval == FIRST_RUN:
        demands.append("a person approves of each image and function once")
    if rule.approval == EVERY_RESULT:
        demands.append("a person approves of whatever leaves")
    return f"{'; '.join(whose)}: {'; '.join(demands)}"
