"""What is kept of the datasets that a node tells of."""

from __future__ import annotations

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.server.rpc.catalogue import MAX_SENT, MAX_TEXT, catalogue_text, datasets_to_proto


def test_texts_are_cut_but_nobody_waits_for_what_is_far_too_much() -> None:
    datasets = [pb.DatasetInfo(name=f"d{number}", description="x" * 1_000) for number in range(100)]
    kept = datasets_to_proto((), catalogue_text(datasets))
    assert [len(each.description) for each in kept] == [MAX_TEXT] * 100
    assert not catalogue_text(datasets * 2), "what is cut is still too much"
    datasets = [pb.DatasetInfo(name="d", description="x" * MAX_SENT)]
    assert not catalogue_text(datasets)
