"""What is generated from the contract is what is committed; pages lead to each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.lib import links
from scripts.lib.contract import ROOT


def test_the_pages_have_not_drifted() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_dead_links_and_forgotten_pages_are_found(tmp_path: Path) -> None:
    for name in ("docs", "protos", "vantage"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").write_text("[a](docs/a.md) [b](docs/b.md#part) [web](https://example.org/) [here](#here)")
    (tmp_path / "docs/a.md").write_text("[up](../README.md) [down](missing.md)")
    (tmp_path / "docs/b.md").write_text("")
    assert [each.partition(" links")[0] for each in links.problems(tmp_path)] == ["docs/a.md"]
    (tmp_path / "docs/missing.md").write_text("")
    (tmp_path / "protos/a.proto").write_text("// See docs/gone.md.")
    assert list(links.problems(tmp_path)) == [
        "protos/a.proto speaks of docs/gone.md, which does not exist",
        "README.md does not name docs/missing.md: add it to the table 'Read on'",
    ]
