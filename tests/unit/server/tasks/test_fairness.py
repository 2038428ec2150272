"""Whose runs a node gets."""

from __future__ import annotations

from vantage.server.domain.fairness import choose


def test_a_flood_of_one_does_not_keep_another_waiting() -> None:
    flood = [f"1-{number}" for number in range(10)]
    assert choose({"rosa": flood, "otto": ["2-0", "2-1"]}, {}, 5) == ["1-0", "2-0", "1-1", "2-1", "1-2"]


def test_what_a_node_has_already_counts() -> None:
    assert choose({"rosa": ["1"], "otto": ["2", "3"]}, {"rosa": 2}, 2) == ["2", "3"]


def test_of_equals_the_older_comes_first_and_no_more_than_there_are() -> None:
    assert choose({"rosa": ["2"], "otto": ["1"], "vera": []}, {}, 9) == ["1", "2"]
