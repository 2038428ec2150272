"""What rules let out of a result: counts, columns, formats; and that nothing hides beside what was looked at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vantage.node.release.looking import ARROW, CSV, JSON, PARQUET, Look, WithheldError, look
from vantage.node.release.paths import fits, leaves, steps

SMALL = Look(counts=("n",), minimum=10)
BLANK = Look(counts=("n",), minimum=10, suppress=True)


def document(value: Any, *looks: Look) -> Any:
    content, blanked = look(JSON, json.dumps(value).encode(), looks)
    return json.loads(content), blanked


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("$", "", True),
        ("$", "n", False),
        ("n", "n", True),
        ("n", "n.n", False),
        ("groups.*.n", "groups.a.n", True),
        ("groups.*.n", "groups.n", False),
        ("groups.*.n", "groups.a.b.n", False),
        ("**.n", "n", True),
        ("**.n", "a.0.n", True),
        ("**.n", "a.0.m", False),
        ("a.**", "a", True),
        ("a.**", "a.b.c", True),
        ("a.**", "b", False),
        ("a.**.n.*", "a.n.n.x", True),
        ("**.**", "", True),
    ],
)
def test_patterns(pattern: str, path: str, expected: bool) -> None:
    assert fits(steps(pattern), tuple(path.split(".")) if path else ()) is expected


def test_leaves_are_all_values_and_empty_holders() -> None:
    found = dict(leaves({"a": [1, {"b": None}], "c": {}, "d": []}))
    assert found == {("a", "0"): 1, ("a", "1", "b"): None, ("c",): {}, ("d",): []}
    assert dict(leaves(5)) == {(): 5}


@pytest.mark.parametrize("value", [9, 0, -1, 9.99, None, "100", True, [], {}])
def test_a_count_that_is_not_known_to_be_large_enough_keeps_the_result(value: Any) -> None:
    with pytest.raises(WithheldError, match="count n is below 10") as caught:
        document({"n": value, "mean": 7.5}, SMALL)
    assert str(value) not in caught.value.why or value in (0, 9, -1, "100", True)
    assert document({"n": 10, "mean": 7.5}, SMALL) == ({"n": 10, "mean": 7.5}, 0)


def test_a_single_number_can_be_a_count() -> None:
    whole = Look(counts=("$",), minimum=5, suppress=True)
    assert document(5, whole) == (5, 0)
    with pytest.raises(WithheldError):
        document(4, whole)


def test_a_result_without_the_count_that_is_looked_at_stays() -> None:
    values: list[Any] = [{"N": 100}, {}, [], {"groups": {}}]
    for value in values:
        with pytest.raises(WithheldError, match="no count n"):
            document(value, SMALL)


def test_what_is_about_too_few_is_blanked_as_a_whole() -> None:
    groups = Look(counts=("groups.*.n",), minimum=10, suppress=True)
    value = {"groups": {"a": {"n": 3, "mean": 7.5}, "b": {"n": 30, "mean": 1.5}}, "total": 33}
    kept = {"groups": {"a": None, "b": {"n": 30, "mean": 1.5}}, "total": 33}
    assert document(value, groups) == (kept, 1)
    cells = Look(counts=("table.*",), minimum=10, suppress=True)
    assert document({"table": [3, 40, 2]}, cells) == ({"table": [None, 40, None]}, 2)
    # Several rules look at what was there, not at what another has left.
    assert document(value, groups, Look(counts=("**.n",), minimum=5, suppress=True)) == (kept, 1)
    outer = Look(counts=("groups.a.n",), minimum=4, suppress=True)
    assert document(
        {"groups": {"a": {"n": 3, "x": {"n": 2}}}}, outer, Look(("groups.**",), ("groups.a.x.n",), 3, True)
    )[0] == {"groups": {"a": None}}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"groups": {"a": {"n": 30}, "b": {"mean": 7.5}}}, {"groups": {"a": {"n": 30}, "b": None}}),
        ({"groups": {"a": {"n": 30}, "b": {"n": {"x": 100}}}}, {"groups": {"a": {"n": 30}, "b": None}}),
        ({"groups": [{"n": 30}, {"n": [100]}, [7.5], 7.5]}, {"groups": [{"n": 30}, None, None, None]}),
        ({"groups": [{"n": 30}, None, {}]}, {"groups": [{"n": 30}, None, {}]}),
    ],
)
def test_what_has_no_count_beside_others_that_have_one_is_about_too_few(value: Any, kept: Any) -> None:
    assert document(value, Look(counts=("groups.*.n",), minimum=10, suppress=True))[0] == kept
    if value != kept:
        with pytest.raises(WithheldError, match=r"count groups\.\*\.n is below"):
            document(value, Look(counts=("groups.*.n",), minimum=10))


def test_a_place_of_many_counts_holds_numbers_alone() -> None:
    cells = Look(counts=("cells.*",), minimum=10, suppress=True)
    assert document({"cells": [30, {"name": "Jansen"}]}, cells) == ({"cells": [30, None]}, 1)
    deep = Look(counts=("groups.*.all.n",), minimum=10, suppress=True)
    value = {"groups": {"a": {"all": {"n": 30}}, "b": {"name": "Jansen"}}}
    assert document(value, deep) == ({"groups": {"a": {"all": {"n": 30}}, "b": None}}, 1)


def test_only_allowed_fields_leave() -> None:
    allowed = Look(columns=("groups.*.n", "groups.*.mean", "total"))
    value = {"groups": {"a": {"n": 30, "mean": 1.5}}, "total": 33}
    assert document(value, allowed) == (value, 0)
    extras: list[dict[str, Any]] = [{"patients": ["Jansen"]}, {"groups": {"a": {"name": "Jansen"}}}, {"Jansen": {}}]
    for extra in extras:
        with pytest.raises(WithheldError, match="does not let out") as caught:
            document({**value, **extra}, allowed)
        assert "Jansen" not in caught.value.why


@pytest.mark.parametrize(
    "content",
    [
        b'{"n": 2, "n": 100}',
        b'{"n": NaN}',
        b'{"n": 1e999}',
        b'{"n": 100',
        b'{"n": 100}\xff',
        b"[" * 200_000,
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
)
def test_json_with_something_hidden_or_broken_stays(content: bytes) -> None:
    with pytest.raises(WithheldError):
        look(JSON, content, [SMALL])


def test_json_is_written_anew() -> None:
    assert look(JSON + "; charset=utf-8", b' {"n"  :\t100.0}\n', [SMALL]) == (b'{"n":100.0}', 0)


def test_csv_has_the_same_rows_for_whoever_reads_it() -> None:
    content = b'n,group,m\n100,"a\r3",b\n'  # unquoted, "3,b" would be a row of its own
    written, _blanked = look(CSV, content, [SMALL])
    assert list(csv.reader(io.StringIO(written.decode(), newline=""))) == [["n", "group", "m"], ["100", "a\r3", "b"]]


def test_csv() -> None:
    content = b"group,n,mean\r\na,3,7.5\r\nb,30,1.5\r\n"
    with pytest.raises(WithheldError):
        look(CSV, content, [SMALL])
    assert look(CSV, content, [BLANK]) == (b"group,n,mean\r\n,,\r\nb,30,1.5\r\n", 1)
    assert look(CSV, content, [Look(columns=("group", "n", "mean"))])[1] == 0
    with pytest.raises(WithheldError, match="column"):
        look(CSV, content, [Look(columns=("group", "n"))])
    for hidden in (b"n\n30,Jansen\n", b"n,n\n30,2\n", b"", b'n\n"30\n', b"n\n\xff\n", b"n\nmany\n", b"n\nnan\n"):
        with pytest.raises(WithheldError):
            look(CSV, hidden, [SMALL])


@pytest.mark.parametrize(
    ("kind", "encode", "decode"),
    [
        (ARROW, arrow, lambda content: pa.ipc.open_stream(content).read_all()),
        (PARQUET, parquet, lambda content: pq.read_table(pa.BufferReader(content))),
    ],
    ids=["arrow", "parquet"],
)
def test_tables(kind: str, encode: Callable[[pa.Table], bytes], decode: Callable[[bytes], pa.Table]) -> None:
    table = pa.table({"group": ["a", "b", "c"], "n": [3, 30, None], "mean": [7.5, 1.5, 2.5]})
    with pytest.raises(WithheldError, match="below 10"):
        look(kind, encode(table), [SMALL])
    content, blanked = look(kind, encode(table), [BLANK])
    empty = {"group": None, "n": None, "mean": None}
    assert decode(content).to_pylist() == [empty, {"group": "b", "n": 30, "mean": 1.5}, empty]
    assert blanked == 2
    large = table.slice(1, 1)
    content, blanked = look(kind, encode(large), [SMALL, Look(columns=("group", "n", "mean"))])
    assert (decode(content).to_pylist(), blanked) == (large.to_pylist(), 0)
    with pytest.raises(WithheldError, match="column"):
        look(kind, encode(table), [Look(columns=("group", "n"))])
    with pytest.raises(WithheldError, match="no count"):
        look(kind, encode(table.drop_columns(["n"])), [SMALL])
    with pytest.raises(WithheldError, match="not a number"):
        look(kind, encode(pa.table({"n": ["100"]})), [SMALL])
    with pytest.raises(WithheldError, match="readable"):
        look(kind, encode(table)[:-40], [SMALL])
    with pytest.raises(WithheldError, match="readable"):
        look(kind, b"", [SMALL])
    assert look(kind, encode(table.slice(0, 0)), [SMALL])[1] == 0


def test_nothing_hides_in_a_table_beside_its_values() -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int8()), pa.array(["many", "Jansen-in-dictionary"]))
    hidden = pa.Array.from_buffers(
        pa.int64(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer((77).to_bytes(8, "little") + b"Visser!!")]
    )
    schema = pa.schema(
        [pa.field("name", names.type, metadata={"a": "Jansen-in-field"}), pa.field("n", pa.int64()), ("x", pa.int64())],
        metadata={"b": "Jansen-in-schema"},
    )
    table = pa.Table.from_arrays([names, pa.array([50, 60]), hidden], schema=schema)
    content = arrow(table) + b"Jansen-behind-the-end"
    assert content.count(b"Jansen") == 4
    assert content.count(b"Visser!!") == 1
    written, _blanked = look(ARROW, content, [SMALL])
    assert b"Jansen" not in written
    assert b"Visser" not in written
    shown = pa.ipc.open_stream(written).read_all()
    assert shown.to_pylist() == [{"name": "many", "n": 50, "x": 77}, {"name": "many", "n": 60, "x": None}]
    # Also inside of others, and what is blanked is gone as well.
    inside = pa.StructArray.from_arrays([hidden], ["y"])
    assert b"Visser" not in look(ARROW, arrow(pa.table({"n": [50, 60], "z": inside})), [SMALL])[0]
    table = pa.table({"n": [3, 50], "name": ["Jansen", "many"]})
    assert b"Jansen" not in look(ARROW, arrow(table), [BLANK])[0]


METADATA = {"d": "Jansen-in-type"}
INNER = pa.field("y", pa.int64(), metadata=METADATA)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"y": 1}, {"y": 2}], pa.struct([INNER])),
        pa.array([[1], [2]], pa.list_(INNER)),
        pa.array([[1], [2]], pa.large_list(INNER)),
        pa.array([[1], [2]], pa.list_(INNER, 1)),
        pa.array([[1], [2]], pa.list_view(INNER)),
        pa.array([[1], [2]], pa.large_list_view(INNER)),
        pa.array([[("a", 1)], []], pa.map_(pa.string(), INNER)),
        pa.array([[{"y": 1}], [None]], pa.list_(pa.struct([INNER]))),
        pa.ExtensionArray.from_storage(pa.opaque(pa.int64(), "Jansen-in-name", "Jansen-too"), pa.array([1, 2])),
    ],
    ids=lambda each: str(each.type)[:20],
)
@pytest.mark.parametrize(("kind", "encode"), [(ARROW, arrow), (PARQUET, parquet)], ids=["arrow", "parquet"])
def test_nothing_hides_in_the_type_of_a_column(
    kind: str, encode: Callable[[pa.Table], bytes], column: pa.Array
) -> None:
    content = encode(pa.table({"n": [50, 60], "z": column}))
    written, _blanked = look(kind, content, [SMALL])
    assert b"Jansen" not in written
    read = pa.ipc.open_stream(written).read_all() if kind == ARROW else pq.read_table(pa.BufferReader(written))
    assert read["z"].to_pylist() == column.to_pylist()


@pytest.mark.parametrize("view", [pa.string_view(), pa.binary_view()], ids=str)
def test_what_is_blanked_is_not_in_the_buffers_that_values_share(view: pa.DataType) -> None:
    names = pa.array(["Jansen, who is one of three", "many, who are more than nine"]).cast(view)
    written, blanked = look(ARROW, arrow(pa.table({"n": [3, 50], "name": names})), [BLANK])
    assert blanked == 1
    assert b"Jansen" not in written
    assert pa.ipc.open_stream(written).read_all()["name"].to_pylist() == [None, names[1].as_py()]


def test_other_formats_cannot_be_looked_into() -> None:
    with pytest.raises(WithheldError, match="cannot be looked into; of these it can: application/json") as caught:
        look("patient/jansen", b"", [SMALL])
    assert "jansen" not in caught.value.why
