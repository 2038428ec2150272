"""Media types of arguments and results, and what files of them are called."""

from __future__ import annotations

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
BYTES = "application/octet-stream"

_SUFFIXES = {
    JSON: ".json",
    ARROW: ".arrows",
    "application/vnd.apache.arrow.file": ".arrow",
    "application/vnd.apache.parquet": ".parquet",
    "text/csv": ".csv",
    "text/plain": ".txt",
}


def suffix_of(media_type: str) -> str:
    """What a file of a media type is called at its end; ``.bin`` for an unknown one."""
    return _SUFFIXES.get(media_type.partition(";")[0].strip().lower(), ".bin")
