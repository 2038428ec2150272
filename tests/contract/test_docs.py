"""What is generated from the contract is what is committed."""

from __future__ import annotations

import subprocess
import sys

from scripts.lib.contract import ROOT


def test_the_pages_have_not_drifted() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
