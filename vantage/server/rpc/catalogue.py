"""What nodes share of their datasets, bounded and as text, which is how it is kept: nobody here looks into it."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import json_format

from vantage.api.admin.v1 import node_service_pb2
from vantage.api.node.v1 import node_session_service_pb2 as pb

MAX_BYTES = 64 * 1024
"""Of all that one node shares beyond the names and formats; a node that shares more is known by these alone."""
MAX_SENT = 4 * MAX_BYTES
"""Of what is sent at all: more is not even cut to size, which would keep everybody else waiting."""
MAX_TABLES = 200
MAX_COLUMNS = 1_000
MAX_QUERIES = 100
MAX_PARAMETERS = 50
MAX_VALUES = 1_000
MAX_NAME = 200
MAX_TEXT = 500


def catalogue_text(datasets: Sequence[pb.DatasetInfo]) -> str:
    """What is kept of a node's datasets; empty when it is names and formats alone, or too much."""
    if sum(each.ByteSize() for each in datasets) > MAX_SENT:
        return ""
    bounded = [_bounded(each) for each in datasets]
    if not any(each.access or each.description or each.tables or each.queries for each in bounded):
        return ""
    text = json_format.MessageToJson(node_service_pb2.Node(datasets=bounded), indent=None)
    return text if len(text.encode()) <= MAX_BYTES else ""


def datasets_to_proto(datasets: Sequence[tuple[str, str]], catalogue: str) -> list[pb.DatasetInfo]:
    """The datasets of a node to send: (name, format), or what it shares of them, where that is kept."""
    if not catalogue:
        return [pb.DatasetInfo(name=name, format=kind) for name, kind in datasets]
    # A replica of the next release may know more.
    kept = json_format.Parse(catalogue, node_service_pb2.Node(), ignore_unknown_fields=True)
    return list(kept.datasets)


def _bounded(given: pb.DatasetInfo) -> pb.DatasetInfo:
    return pb.DatasetInfo(
        name=given.name[:100],
        format=given.format[:40],
        description=given.description[:MAX_TEXT],
        access=given.access[:40],
        tables=[_table(each) for each in given.tables[:MAX_TABLES]],
        queries=[_query(each) for each in given.queries[:MAX_QUERIES]],
    )


def _table(given: pb.DatasetTable) -> pb.DatasetTable:
    table = pb.DatasetTable(
        name=given.name[:MAX_NAME],
        columns=[
            pb.DatasetColumn(name=each.name[:MAX_NAME], type=each.type[:MAX_NAME])
            for each in given.columns[:MAX_COLUMNS]
        ],
    )
    if given.HasField("row_count"):
        table.row_count = max(given.row_count, 0)
    return table


def _query(given: pb.DatasetQuery) -> pb.DatasetQuery:
    return pb.DatasetQuery(
        name=given.name[:MAX_NAME],
        description=given.description[:MAX_TEXT],
        parameters=[
            pb.QueryParameter(
                name=each.name[:MAX_NAME],
                type=each.type[:40],
                description=each.description[:MAX_TEXT],
                minimum=each.minimum[:MAX_NAME],
                maximum=each.maximum[:MAX_NAME],
                values=[value[:MAX_NAME] for value in each.values[:MAX_VALUES]],
                max_length=each.max_length,
                required=each.required,
            )
            for each in given.parameters[:MAX_PARAMETERS]
        ],
    )
