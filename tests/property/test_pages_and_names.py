"""Page tokens and resource names: what is made is understood, and whatever else arrives is a clear error."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vantage.common import names
from vantage.common.errors import InvalidArgumentError, Reason
from vantage.server.storage import pages

QUERY = "filter"
ROWS = st.lists(st.text(max_size=20), unique=True, max_size=60).map(sorted)
KINDS = list(names._PATTERNS)


def listed(rows: list[str], size: int, fit: int = 20) -> list[list[str]]:
    """All pages, as a server and a client make them between them; of each no more rows are shown than fit."""
    found, token = [], ""
    while True:
        after = pages.decode(token, QUERY)
        rest = [row for row in rows if after is None or row > after]
        page = pages.cut(rest[: size + 1], size, QUERY, str)
        shown = min(len(page.rows), fit)
        found.append(list(page.rows[:shown]))
        token = page.token(shown)
        if not token:
            return found


@given(ROWS, st.integers(1, 20), st.integers(1, 20))
def test_pages_that_show_less_than_they_have_show_every_row_once(rows: list[str], size: int, fit: int) -> None:
    found = listed(rows, size, fit)
    assert [row for page in found for row in page] == rows
    assert all(len(page) == min(size, fit) for page in found[:-1])


@given(ROWS, st.integers(1, 20))
def test_pages_show_every_row_once_and_in_order(rows: list[str], size: int) -> None:
    found = listed(rows, size)
    assert [row for page in found for row in page] == rows
    assert all(len(page) == size for page in found[:-1])
    assert len(found[-1]) <= size


def forged(content: str) -> str:
    return base64.urlsafe_b64encode(content.encode()).decode()


@given(st.text(max_size=200))
@example("é")
@example(forged("[" * 100_000))
@example(forged("{}"))
@example(forged(json.dumps([pages._fingerprint(QUERY), 7])))
@example(forged(json.dumps([pages._fingerprint(QUERY), "\ud800"])))
@example(forged(json.dumps([pages._fingerprint("another filter"), "key"])))
def test_any_other_token_is_refused(token: str) -> None:
    if not token:
        return
    with pytest.raises(InvalidArgumentError) as caught:
        pages.decode(token, QUERY)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


@given(st.integers(-(2**31), 2**31 - 1))
def test_sizes_are_bounded(requested: int) -> None:
    if requested < 0:
        with pytest.raises(InvalidArgumentError):
            pages.page_size(requested)
    else:
        assert 1 <= pages.page_size(requested) <= pages.MAX_SIZE


@given(st.data(), st.sampled_from(KINDS))
def test_a_name_is_its_parts(data: st.DataObject, kind: str) -> None:
    text = data.draw(st.from_regex(names._PATTERNS[kind], fullmatch=True))
    parsed = names.parse(text, kind)
    assert (str(parsed), parsed.kind) == (text, kind)
    assert text.endswith(f"/{parsed.id}")
    assert [other for other in KINDS if names.is_valid(text, other)] == [kind]
    if "/" in kind:
        assert names.parse(str(parsed.parent), parsed.parent.kind) == parsed.parent


@given(st.text(max_size=80) | st.from_regex(r"[a-z/-]{0,80}\n?"), st.sampled_from(KINDS))
def test_any_other_text_is_no_name(text: str, kind: str) -> None:
    if names.is_valid(text, kind):
        assert str(names.parse(text, kind)) == text
        assert "\n" not in text
        return
    with pytest.raises(InvalidArgumentError) as caught:
        names.parse(text, kind, field="parent")
    assert caught.value.metadata["field"] == "parent"
