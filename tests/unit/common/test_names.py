from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vantage.common import names
from vantage.common.backoff import Backoff
from vantage.common.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("organizations/clara", "organizations"),
        ("organizations/clara/nodes/clara-1", "organizations/nodes"),
        ("users/ada.lovelace", "users"),
        ("tasks/0190b3f2-7a41-7cc0-8000-000000000001", "tasks"),
    ],
)
def test_names_are_parsed_and_printed(text: str, kind: str) -> None:
    assert str(names.parse(text, kind)) == text


@pytest.mark.parametrize(
    "text", ["", "organizations/", "organizations/Clara", "organizations/a", "organizations/-a", "organizations/x\n",
             "organizations/clara/", "organizations/clara/nodes/x1", "organizations/" + "a" * 41]
)  # fmt: skip
def test_bad_names_say_what_is_expected(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"organizations/\{organization\}"):
        names.parse(text, "organizations")


@given(st.text(max_size=60))
def test_parsing_any_text_gives_a_name_or_our_error(text: str) -> None:
    try:
        assert str(names.parse(text, "organizations/nodes")) == text
    except InvalidArgumentError:
        assert not names.is_valid(text, "organizations/nodes")


def test_new_ids_are_valid_version_7_and_sort_by_time() -> None:
    ids = [names.new_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(names.is_valid(f"tasks/{each}", "tasks") and each[14] == "7" and each[19] in "89ab" for each in ids)
    assert [each[:8] for each in ids] == sorted(each[:8] for each in ids)


def test_backoff_grows_to_its_cap_and_resets() -> None:
    backoff = Backoff(base=1.0, cap=8.0, random=random.Random(1))
    delays = [backoff.next_delay() for _ in range(200)]
    assert max(delays) <= 8.0
    assert max(delays[10:]) > 4.0
    assert delays[0] <= 1.0
    backoff.reset()
    assert backoff.next_delay() <= 1.0
