"""A config that engines would read in another way than reviewers is refused."""

from __future__ import annotations

import json

import pytest

from vantage.common import oci
from vantage.common.errors import Reason, VantageError
from vantage.common.image_manifest import ImageConfig, read_config, read_manifest
from vantage.common.oci import ImageReference, digest_of
from vantage.testing.scripted_registry import Answer, ScriptedRegistry

LAYER = f"sha256:{'ab' * 32}"


async def read(config: str) -> ImageConfig:
    content = config.encode()
    manifest = json.dumps(
        {
            "config": {"mediaType": "x", "digest": digest_of(content), "size": len(content)},
            "layers": [{"mediaType": "x", "digest": LAYER, "size": 1}],
        }
    ).encode()
    async with ScriptedRegistry.answering(Answer(body=manifest), Answer(body=content)) as server:
        reference = ImageReference(server.address, "a/b", digest_of(manifest))
        async with oci.connect(server.address, "a/b", oci.RegistryAccess()) as registry:
            return await read_config(registry, reference, await read_manifest(registry, reference))


def written(inner: str = '"User": "7"', more: str = "", roots: str = "") -> str:
    return f'{{"config": {{{inner}}}, "rootfs": {{"diff_ids": ["{LAYER}"]{roots}}}{more}}}'


@pytest.mark.parametrize(
    "config",
    [
        written('"Entrypoint": ["good"], "Entrypoint": ["evil"]'),
        written('"Entrypoint": ["good"], "ENTRYPOINT": ["evil"]'),
        written('"User": "7", "U\\u017fer": "0"'),  # the long s, which Go takes for one
        written(more=', "Config": {"User": "0"}'),
        written(more=f', "RootFS": {{"diff_ids": ["{LAYER}"]}}'),
        written(roots=f', "Diff_IDs": ["{LAYER}"]'),
        written('"Labels": {"a": "1", "a": "2"}'),
        written('"USER": "0"'),
        written().replace('"config"', '"Config"'),
        written().replace('{"User": "7"}', "7"),
    ],
    ids=range(10),
)
async def test_two_readings_are_refused(config: str) -> None:
    with pytest.raises(VantageError) as caught:
        await read(config)
    assert caught.value.reason is Reason.IMAGE_TAMPERED


async def test_where_keys_are_free_case_may_be_all_that_differs() -> None:
    found = await read(written('"User": "7", "Labels": {"version": "1", "Version": "2"}'))
    assert found.settings == {"User": "7", "Labels": {"version": "1", "Version": "2"}}
