"""Bulk data without protobuf is the same bytes as with it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.relay.v1 import relay_service_pb2
from vantage.common.data_field import decode_data, encode_data


@given(st.integers(0, 300_000))
def test_both_ways_agree_with_protobuf(size: int) -> None:
    data = bytes(size)
    if data:
        assert encode_data(data) == pb.DialRequest(data=data).SerializeToString()
        assert encode_data(memoryview(data)) == relay_service_pb2.OpenRequest(data=data).SerializeToString()
    decoded = decode_data(encode_data(data))
    assert decoded is not None
    assert bytes(decoded) == data


@given(st.binary(max_size=200))
def test_what_is_something_else_is_left_to_protobuf(message: bytes) -> None:
    data = decode_data(message)
    if data is not None:
        assert encode_data(data) == message or pb.DialResponse.FromString(message).data == bytes(data)


def test_other_messages_are_told_apart() -> None:
    for message in (
        pb.DialResponse(opened=pb.DialOpened()),
        pb.DialResponse(finished=pb.DialFinished()),
        pb.DialRequest(target=pb.DialTarget(peer=pb.PeerTarget(peer="clara", label="ring"))),
        pb.DialResponse(),
    ):
        assert decode_data(message.SerializeToString()) is None
