"""The images of the examples, built from their Dockerfiles, in a container without network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vantage.common.declaration import LABEL, Declaration

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from tests.unit.algorithm.local_node import TOKEN, LocalNode, serving  # noqa: E402
from vantage.testing.engine import docker_client  # noqa: E402

pytestmark = pytest.mark.docker

COLUMNS = {"time_column": "time", "event_column": "status"}


def declaration(example: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vantage.algorithm", "declare", "algorithm"],
        cwd=ROOT / "examples" / example,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("example", "function", "arguments", "field"),
    [
        ("summary", "partial_summary", {"columns": ["age"]}, "age"),
        ("kaplan-meier", "partial_counts", {**COLUMNS, "grid": [100.0]}, "at_risk"),
    ],
)
def test_image_answers(example: str, function: str, arguments: dict[str, object], field: str, tmp_path: Path) -> None:
    node = LocalNode(function, json.dumps(arguments).encode(), {"df": Path("/data/df/clara.csv")})
    declared = declaration(example)
    with docker_client() as engine, serving(node, tmp_path) as socket:
        tmp_path.chmod(0o755)
        socket.chmod(0o666)
        image, _ = engine.images.build(
            path=str(ROOT / "examples" / example),
            buildargs={"DECLARATION": declared},
            labels={"org.vantage.test": str(tmp_path)},  # nobody else's build of the example is removed below
            rm=True,
        )
        try:
            # As nodes read it.
            read = Declaration.parse(image.labels[LABEL])
            assert read.dumps() == declared
            assert read.function(function).name == function
            engine.containers.run(
                str(image.id),
                environment={"VANTAGE_SOCKET": "/run/vantage/api.sock", "VANTAGE_TOKEN": TOKEN},
                volumes={
                    str(tmp_path): {"bind": "/run/vantage", "mode": "ro"},
                    str(ROOT / "examples/data"): {"bind": "/data/df", "mode": "ro"},
                },
                network_mode="none",
                read_only=True,
                user="65534:65534",
                remove=True,
            )
        finally:
            engine.images.remove(str(image.id), force=True)
    assert node.result is not None
    assert field in json.loads(node.result[1])
