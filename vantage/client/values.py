"""Values and the bytes that carry them: JSON, Arrow, and whatever else has a media type."""

from __future__ import annotations

import json
from typing import Any

from vantage.common.errors import Reason, error


def decode(media_type: str, content: bytes) -> Any:
    """A value: JSON becomes Python values, an Arrow stream a ``pyarrow.Table``, anything else stays bytes.

    Raises:
        InvalidArgumentError: RESULT_NOT_SERIALIZABLE, the bytes are not what the media type says.
    """
    try:
        match media_type.partition(";")[0].strip().lower():
            case "application/json":
                return json.loads(content)
            case "application/vnd.apache.arrow.stream":
                import pyarrow

                with pyarrow.ipc.open_stream(pyarrow.py_buffer(content)) as reader:
                    return reader.read_all()
            case _:
                return content
    except (ValueError, RecursionError, OSError) as problem:  # pyarrow's errors are ValueError or OSError
        raise error(
            Reason.RESULT_NOT_SERIALIZABLE,
            f"the answer is not {media_type}, as the algorithm says: ask its author ({type(problem).__name__})",
        ) from None
