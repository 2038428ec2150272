"""Which rules speak of a run, and what of several counts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vantage.node.config import ReleaseRule
from vantage.node.release.looking import Look
from vantage.node.release.terms import FREE, Terms, terms_of

REPOSITORY = "registry.test/algorithms/summary"


def terms(*rules: dict[str, Any], function: str = "partial", datasets: tuple[str, ...] = ("lung",)) -> Terms:
    return terms_of([ReleaseRule.model_validate(each) for each in rules], REPOSITORY, function, datasets)


@pytest.mark.parametrize(
    ("rule", "speaks"),
    [
        ({}, True),
        ({"repository": "registry.test/algorithms/*"}, True),
        ({"repository": "registry.test/*"}, False),
        ({"repository": "registry.test/algorithms/sum"}, False),
        ({"functions": ["partial"]}, True),
        ({"functions": ["other"]}, False),
        ({"datasets": ["heart", "lung"]}, True),
        ({"datasets": ["heart"]}, False),
        ({"repository": REPOSITORY, "functions": ["partial"], "datasets": ["lung"]}, True),
        ({"repository": REPOSITORY, "functions": ["other"], "datasets": ["lung"]}, False),
    ],
)
def test_a_rule_speaks_of_what_it_names(rule: dict[str, Any], speaks: bool) -> None:
    found = terms({**rule, "approval": "every_result"})
    assert found.every_result is speaks
    assert (found == FREE) is not speaks


def test_of_several_rules_all_count() -> None:
    found = terms(
        {"max_result_bytes": "1MiB", "media_types": ["application/json", "text/csv"], "approval": "first_run"},
        {"max_result_bytes": "2MiB", "media_types": ["text/csv"]},
        {"counts": ["n"], "minimum_count": 10, "small_counts": "suppress"},
        {"columns": ["n", "mean"], "approval": "every_result"},
        {"functions": ["other"], "max_result_bytes": 1},
    )
    assert found == Terms(
        max_bytes=1024**2,
        media_types=frozenset({"text/csv"}),
        looks=(Look(None, ("n",), 10, True), Look(("n", "mean"))),
        first_run=True,
        every_result=True,
    )


def test_what_is_not_looked_at_is_not_guarded() -> None:
    assert not terms({"max_result_bytes": 100}, {"approval": "first_run"}).guarded
    for rule in ({"columns": ["n"]}, {"media_types": ["text/csv"]}, {"approval": "every_result"}):
        assert terms(rule).guarded


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"counts": ["n"]},
        {"minimum_count": 10},
        {"counts": ["n"], "minimum_count": 1},
        {"approval": "sometimes"},
        {"columns": [""]},
    ],
)
def test_a_rule_that_demands_nothing_is_a_mistake(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReleaseRule.model_validate(rule)
