"""``scripts/soak``, for three minutes: CI runs it with another seed each time, and prints it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "scripts" / "soak"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_minutes_of_everything_that_goes_wrong() -> None:
    done = subprocess.run(
        [sys.executable, SOAK, "--minutes", "3"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"^seed \w+: 0 violations$", done.stdout, re.MULTILINE), done.stdout
    # It was no idle walk.
    counts = {what: int(count) for count, what in re.findall(r"^ *(\d+)  (.+)$", done.stdout, re.MULTILINE)}
    assert counts["every task has ended"] > 50, done.stdout
    assert "server killed" in done.stdout
