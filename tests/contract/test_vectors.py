"""The vectors that other clients test themselves with are what our own code makes and takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def check(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "vectors", "--check", "--directory", directory],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_stored_vectors_are_right() -> None:
    done = check(ROOT / "tests" / "vectors")
    assert (done.returncode, done.stderr) == (0, "")


def _without(vectors: list[dict[str, Any]]) -> None:
    del vectors[0]


def _unknown(vectors: list[dict[str, Any]]) -> None:
    vectors.append(vectors[0] | {"name": "order/made-up"})


def _resigned(vectors: list[dict[str, Any]]) -> None:
    signature = vectors[0]["envelope"].partition('"sig":"')[2].partition('"')[0]
    vectors[0]["envelope"] = vectors[0]["envelope"].replace(
        signature, vectors[1]["envelope"].partition('"sig":"')[2].partition('"')[0]
    )


def _other_verdict(vectors: list[dict[str, Any]]) -> None:
    vectors[0]["verdict"] = "ORDER_INVALID"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without, "order/valid: it is missing"),
        (_unknown, "order/made-up: nobody knows this vector"),
        (_resigned, "order/valid: it is refused"),
        (_other_verdict, "order/valid: what is said of it differs"),
    ],
)
def test_a_drift_is_told(tmp_path: Path, change: Callable[[list[dict[str, Any]]], None], said: str) -> None:
    directory = tmp_path / "vectors"
    shutil.copytree(ROOT / "tests" / "vectors", directory)
    file = directory / "order-vectors.json"
    vectors = json.loads(file.read_text("utf-8"))
    change(vectors)
    file.write_text(json.dumps(vectors), "utf-8")
    done = check(directory)
    assert done.returncode == 1
    assert said in done.stderr
