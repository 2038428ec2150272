"""Questions are compared with what the image declares, before they are sent; a real registry tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from vantage.client import AsyncClient, Target
from vantage.client.images import FORGET, AsyncImages
from vantage.common.clock import ManualClock, SystemClock
from vantage.common.errors import InvalidArgumentError, Reason, RefusedError, UnavailableError
from vantage.testing.declared import push_declaration
from vantage.testing.registry import Registry

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

DECLARATION = {
    "schema": 1,
    "functions": {
        "count": {
            "arguments": {
                "type": "object",
                "properties": {"minimum": {"type": "integer"}},
                "required": ["minimum"],
                "additionalProperties": False,
            },
            "data": [{"parameter": "table"}],
        }
    },
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def image(registry: Registry) -> AsyncIterator[str]:
    yield await push_declaration(registry.address, "algorithms/count", DECLARATION)


GOOD: dict[str, Any] = {
    "function": "count",
    "arguments": {"minimum": 5},
    "datasets": {"table": "lung"},
    "organizations": ["clara"],
    "collaboration": "trial",
}


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        ({"function": "sum"}, Reason.FUNCTION_UNKNOWN, "it has count"),
        ({"arguments": {"minimum": "5"}}, Reason.ARGUMENTS_INVALID, "argument minimum"),
        ({"arguments": {}}, Reason.ARGUMENTS_INVALID, "minimum"),
        ({"arguments": {"minimum": 5, "other": 1}}, Reason.ARGUMENTS_INVALID, "other"),
        ({"datasets": {}}, Reason.ARGUMENTS_INVALID, "count reads table"),
        ({"datasets": {"table": "lung", "df": "lung"}}, Reason.ARGUMENTS_INVALID, "df, table"),
        ({"targets": [Target("hilda", arguments={"minimum": 1.5})]}, Reason.ARGUMENTS_INVALID, "argument minimum"),
        ({"targets": [Target("hilda", datasets={"df": "lung"})]}, Reason.ARGUMENTS_INVALID, "count reads table"),
    ],
)
async def test_what_the_image_does_not_take_is_not_sent(
    client: AsyncClient, image: str, changes: dict[str, Any], reason: Reason, text: str
) -> None:
    before = [task.name async for task in client.tasks.list()]
    with pytest.raises(InvalidArgumentError, match=text) as caught:
        await client.tasks.run(image=image, **{**GOOD, **changes})
    assert caught.value.reason is reason
    assert [task.name async for task in client.tasks.list()] == before


async def test_what_the_image_takes_is_sent(client: AsyncClient, image: str) -> None:
    task = await client.tasks.run(image=image, **GOOD)
    assert (await client.tasks.get(task.name)).image == image
    await task.cancel()


async def test_tags_are_resolved_and_declarations_read(registry: Registry, image: str) -> None:
    images = AsyncImages()
    assert await images.resolve(f"{registry.address}/algorithms/count") == image
    assert await images.resolve(f"{registry.address}/algorithms/count:latest") == image
    assert list((await images.declaration(image)).functions) == ["count"]
    with pytest.raises(RefusedError) as caught:
        await images.resolve(f"{registry.address}/algorithms/count:other")
    assert caught.value.reason is Reason.IMAGE_NOT_FOUND
    silent = await push_declaration(registry.address, "algorithms/silent", None)
    with pytest.raises(RefusedError, match="no label"):
        await images.declaration(silent)


async def test_a_registry_that_is_down_keeps_nobody_from_asking(tmp_path: Path) -> None:
    clock = ManualClock(SystemClock().now())
    images = AsyncImages(clock)
    with Registry(tmp_path) as registry:
        image = await push_declaration(registry.address, "algorithms/count", DECLARATION)
        other = await push_declaration(registry.address, "algorithms/count", DECLARATION, "other")
        assert await images.declaration_if_known(image) is not None
        registry.stop()
        assert await images.declaration_if_known(image) is not None  # a digest stays true
        with pytest.raises(UnavailableError):
            await images.declaration(other)
        assert await images.declaration_if_known(other) is None
        registry.start()
        assert await images.declaration_if_known(other) is None  # left alone for a while
        clock.advance(FORGET)
        assert await images.declaration_if_known(other) is not None
