"""What a node tells of its keys: before it is ready, once, and why not when the server does not take them."""

from __future__ import annotations

from vantage.api.identity.v1 import key_service_pb2 as pb
from vantage.common.dsse import peek
from vantage.common.errors import Reason, error
from vantage.common.statements import KeyBundle
from vantage.testing.station import Station


def lists(station: Station) -> list[KeyBundle]:
    """What was published."""
    requests = [each for each in station.server.calls["PublishKeys"] if isinstance(each, pb.PublishKeysRequest)]
    return [KeyBundle.decode(peek(each.envelope)) for each in requests]


async def test_keys_are_published_before_the_first_session_and_once(station: Station) -> None:
    async with station.running():
        session = await station.session()
        (published,) = lists(station)
        assert published.holder.endswith("/nodes/clara-1")
        session.end()
        await station.session()
        assert lists(station) == [published]


async def test_a_directory_that_was_lost_starts_above_what_was_published(station: Station) -> None:
    stale = error(Reason.KEYS_STALE, "a newer version is published", version="99999999999")
    station.server.script("PublishKeys", stale)
    async with station.running():
        await station.session()
    first, second = lists(station)
    assert second.version == 100_000_000_000 > first.version


async def test_a_version_that_is_no_number_does_not_end_the_node(station: Station) -> None:
    station.server.script("PublishKeys", error(Reason.KEYS_STALE, "a newer version is published", version="x1"))
    async with station.running():
        await station.session()
        await station.heard("nobody can seal arguments to it: a newer version is published")


async def test_a_refusal_is_said_and_the_node_goes_on(station: Station) -> None:
    station.server.script("PublishKeys", error(Reason.CERTIFICATE_UNTRUSTED, "nobody vouches for it"))
    async with station.running():
        await station.session()
        await station.heard("nobody can seal arguments to it: nobody vouches for it")
