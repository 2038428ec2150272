"""``python3 -m vantage.algorithm``: entry point of algorithm images, and the author's tools."""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> int:
    """Without arguments: the container's entry point. Otherwise declare or run."""
    # Inside a container nothing but the run is needed: the tools are not even imported.
    if not arguments:
        from vantage.algorithm.runtime import main as run

        return run(os.environ)
    from vantage.algorithm.tools import main as tools

    return tools(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
