"""Results that are Arrow streams or Parquet files. Apart from the rest: it needs pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vantage.node.release.looking import ARROW, Look, WithheldError, check_names, counted


def look(kind: str, content: bytes, looks: Sequence[Look]) -> tuple[bytes, int]:
    """As ``looking.look``."""
    try:
        table = _read(kind, content)
    except (pa.ArrowException, OSError, ValueError):
        raise WithheldError("it is not a readable table") from None
    names = table.column_names
    if len(set(names)) != len(names):
        raise WithheldError("it has two columns of one name")
    enough = pa.chunked_array([pa.array([True] * table.num_rows, pa.bool_())])
    for rule in looks:
        check_names(names, rule)
        enough = pc.and_(enough, _enough(table, rule))
    blanked = table.num_rows - (pc.sum(pc.cast(enough, pa.int64())).as_py() or 0)
    return _write(kind, table, enough), blanked


def _read(kind: str, content: bytes) -> Any:
    if kind != ARROW:
        return pq.read_table(pa.BufferReader(content))
    with pa.ipc.open_stream(content) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return table


def _enough(table: Any, rule: Look) -> Any:
    """For each row, whether all its counts are large enough for a rule."""
    enough = pa.chunked_array([pa.array([True] * table.num_rows, pa.bool_())])
    for index in counted(table.column_names, rule):
        column = table.column(index)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise WithheldError(f"a count in {', '.join(rule.counts)} is not a number")
        # Missing, or not a number at all: not known to be large enough.
        here = pc.fill_null(pc.greater_equal(pc.cast(column, pa.float64(), safe=False), float(rule.minimum)), False)
        enough = pc.and_(enough, here)
    if not rule.suppress and not pc.all(enough, min_count=0).as_py():
        raise WithheldError(f"a count in {', '.join(rule.counts)} is below {rule.minimum}, or is not a number")
    return enough


def _write(kind: str, table: Any, shown: Any) -> bytes:
    """The table with these rows shown and the others blank, and nothing besides its values.

    Entries of dictionaries that no value refers to, values that lie below missing ones, and metadata stay here, also
    the metadata that types carry.
    """
    clean = pa.table([_clean(column, shown) for column in table.columns], names=table.column_names)
    sink = pa.BufferOutputStream()
    if kind == ARROW:
        with pa.ipc.new_stream(sink, clean.schema) as writer:
            writer.write_table(clean)
    else:
        pq.write_table(clean, sink)
    return bytes(sink.getvalue().to_pybytes())


def _clean(column: Any, shown: Any) -> Any:
    if isinstance(column.type, pa.BaseExtensionType):
        return _clean(pa.chunked_array([each.storage for each in column.chunks], column.type.storage_type), shown)
    if pa.types.is_run_end_encoded(column.type):
        return _clean(pc.run_end_decode(column), shown)
    kind = _bare(column.type)
    present = pc.and_(shown, pc.is_valid(column))
    if pa.types.is_nested(kind):
        values = zip(column.to_pylist(), present.to_pylist(), strict=True)
        return pa.array([value if there else None for value, there in values], kind)
    if column.type != kind:
        column = pc.cast(column, kind)
    # Values that are there are copied, and taken to their places: no kernel of Arrow promises to clear the others.
    number = pc.subtract(pc.cumulative_sum(pc.cast(present, pa.int64())), 1)
    return column.filter(present).take(pc.if_else(present, number, pa.scalar(None, pa.int64())))


def _bare(kind: Any) -> Any:
    """The type of the same values without metadata, and without what keeps them in a place that others share."""
    if isinstance(kind, pa.BaseExtensionType):
        return _bare(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _bare(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if not pa.types.is_nested(kind):
        return kind
    if pa.types.is_struct(kind):
        return pa.struct([_bare_field(each) for each in kind])
    if pa.types.is_map(kind):
        return pa.map_(_bare_field(kind.key_field), _bare_field(kind.item_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_bare_field(kind.value_field), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_bare_field(kind.value_field))
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_bare_field(kind.value_field))
    raise WithheldError("it has a column of a type that cannot be looked into")


def _bare_field(field: Any) -> Any:
    return pa.field(field.name, _bare(field.type), field.nullable)
