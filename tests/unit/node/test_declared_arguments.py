"""Arguments that readers understand differently are refused, whatever the schema allows."""

from __future__ import annotations

import pytest

from vantage.common.declaration import Function
from vantage.common.errors import Reason, VantageError
from vantage.node.declaration import check_arguments

BELOW = Function("summary", arguments={"properties": {"min_count": {"not": {"maximum": 10}}}})
FUNCTION = Function("summary", arguments={"properties": {"min_count": {"minimum": 10}}})


@pytest.mark.parametrize("content", [b'{"min_count": 1, "min_count": 10}', b'{"more": [{"a": 1, "a": 2}]}'])
def test_a_key_twice_is_refused(content: bytes) -> None:
    """Some readers take the first of them, and the algorithm may be one of these."""
    with pytest.raises(VantageError, match="a key twice") as caught:
        check_arguments(FUNCTION, content)
    assert caught.value.reason is Reason.ARGUMENTS_INVALID
    check_arguments(FUNCTION, b'{"min_count": 10, "more": [{"a": 1}, {"a": 2}]}')


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_in_json_is_refused(number: str) -> None:
    for content in (f'{{"min_count": {number}}}', f'{{"min_count": 11, "more": [{number}]}}'):
        with pytest.raises(VantageError, match=f"have {number}, which JSON does not have") as caught:
            check_arguments(BELOW, content.encode())
        assert caught.value.reason is Reason.ARGUMENTS_INVALID
    check_arguments(BELOW, b'{"min_count": 11, "more": [null, "NaN"]}')


@pytest.mark.parametrize("number", ["1e999", "-1e999", f"1{'0' * 309}"])
def test_a_number_that_some_read_as_infinity_is_refused(number: str) -> None:
    with pytest.raises(VantageError, match=f"have {number[:20]}, which is too large") as caught:
        check_arguments(BELOW, f'{{"min_count": 11, "more": [{number}]}}'.encode())
    assert caught.value.reason is Reason.ARGUMENTS_INVALID
    check_arguments(BELOW, b'{"min_count": 11, "more": [1e308, 1e-999]}')
