"""The engine as tests see it, and the base image that test algorithms stand on."""

import json
import uuid

import pytest

from vantage.testing.engine import BASE_IMAGE, docker_client, leftovers, remove_leftovers

pytestmark = pytest.mark.docker


def test_leftovers_are_found_and_removed_by_their_label() -> None:
    label = f"vantage.test={uuid.uuid4().hex}"
    key, _, value = label.partition("=")
    with docker_client() as client:
        assert leftovers(client, label) == []
        try:
            container = client.containers.create(BASE_IMAGE, labels={key: value}, network_mode="none")
            volume = client.volumes.create(labels={key: value})
            assert leftovers(client, label) == [f"container {container.name}", f"volume {volume.name}"]
        finally:
            remove_leftovers(client, label)
        assert leftovers(client, label) == []


def test_the_base_image_runs_the_sdk_in_a_locked_box() -> None:
    program = """
import json, os, sys
import grpc, pandas, pyarrow.parquet
import vantage.api, vantage.common.errors
print(json.dumps({"uid": os.getuid(), "cached": os.path.exists(vantage.common.errors.__cached__)}))
"""
    with docker_client() as client:
        output = client.containers.run(
            BASE_IMAGE,
            ["-c", program],
            entrypoint="python3",
            remove=True,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
    assert json.loads(output) == {"uid": 65534, "cached": True}


def test_the_base_image_holds_only_the_packages_of_an_algorithm() -> None:
    program = "import os, vantage; print(*sorted(os.listdir(vantage.__path__[0])))"
    with docker_client() as client:
        output = client.containers.run(
            BASE_IMAGE, ["-c", program], entrypoint="python3", remove=True, network_mode="none", read_only=True
        )
    assert output.decode().split() == ["__init__.py", "__pycache__", "algorithm", "api", "common", "py.typed"]
