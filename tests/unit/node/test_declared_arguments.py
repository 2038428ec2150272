"""Arguments that readers understand differently are refused, whatever the schema allows."""

from __future__ import annotations

import pytest

from vantage.common.declaration import Function
from vantage.common.errors import Reason, VantageError
from vantage.node.declaration import check_arguments

FUNCTION = Function("summary", arguments={"properties": {"min_count": {"minimum": 10}}})


@pytest.mark.parametrize("content", [b'{"min_count": 1, "min_count": 10}', b'{"more": [{"a": 1, "a": 2}]}'])
def test_a_key_twice_is_refused(content: bytes) -> None:
    """Some readers take the first of them, and the algorithm may be one of these."""
    with pytest.raises(VantageError, match="a key twice") as caught:
        check_arguments(FUNCTION, content)
    assert caught.value.reason is Reason.ARGUMENTS_INVALID
    check_arguments(FUNCTION, b'{"min_count": 10, "more": [{"a": 1}, {"a": 2}]}')
