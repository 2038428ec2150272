"""Which versions of lists of keys were seen, by several programs with one file."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vantage.common.seen_versions import SeenVersions

EACH = 25


def test_what_several_see_at_once_is_all_remembered(tmp_path: Path) -> None:
    path, together = tmp_path / "seen.json", threading.Barrier(4)

    def see(program: int) -> None:
        mine = SeenVersions(path)
        together.wait()
        for number in range(EACH):
            mine[f"organizations/o{program}/nodes/n{number}"] = number + 1

    with ThreadPoolExecutor(4) as programs:
        list(programs.map(see, range(4)))
    assert dict(SeenVersions(path)) == {
        f"organizations/o{program}/nodes/n{number}": number + 1 for program in range(4) for number in range(EACH)
    }


def test_an_older_version_never_takes_the_place_of_a_newer(tmp_path: Path) -> None:
    one, other = SeenVersions(tmp_path / "seen.json"), SeenVersions(tmp_path / "seen.json")
    other["organizations/o/nodes/n"] = 7
    one["organizations/o/nodes/n"] = 5
    assert dict(one) == dict(SeenVersions(tmp_path / "seen.json")) == {"organizations/o/nodes/n": 7}
