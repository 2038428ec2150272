"""Looks into a result in a process of its own: results come from others' programs, and parsers have faults.

Run as ``python -m vantage.node.release.worker``; the question comes on standard input, the answer goes to standard
output, both JSON. It may use so much memory and time, and ends without an answer when it needs more.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from vantage.node.release.looking import Look, WithheldError, look

MAX_MEMORY = 4 * 1024**3
"""Of addresses; pyarrow reserves more than it uses."""
MAX_SECONDS = 120


def main() -> None:
    """Answer one question."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked = json.load(sys.stdin)
    try:
        content, blanked = look(
            asked["media_type"], Path(asked["source"]).read_bytes(), [Look(**each) for each in asked["looks"]]
        )
        Path(asked["target"]).write_bytes(content)
    except WithheldError as problem:
        print(json.dumps({"withheld": problem.why}))
        return
    except MemoryError:
        print(json.dumps({"withheld": "it is too large to be looked into"}))
        return
    print(json.dumps({"blanked": blanked}))


if __name__ == "__main__":
    main()
