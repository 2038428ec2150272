"""Names for people: any text, of a bounded length, so that a page of a list always fits into a message."""

from __future__ import annotations

from vantage.common.errors import Reason, error

MAX_LENGTH = 200


def checked(text: str) -> str:
    """The text, if it is short enough.

    Raises:
        InvalidArgumentError: it has more than ``MAX_LENGTH`` characters.
    """
    if len(text) > MAX_LENGTH:
        raise error(
            Reason.INVALID_ARGUMENT, f"a display name has at most {MAX_LENGTH} characters", field="display_name"
        )
    return text
