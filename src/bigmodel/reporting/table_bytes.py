"""Columns of predictions as the content of a CSV or Parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigmodel.data.tabular.json_values import is_json, to_castable


def as_arrow(values: Any) -> Any:
    """An Arrow column with null instead of NaN; values of mixed types become text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values, pa.Array | pa.ChunkedArray):
        is_floating = pa.types.is_floating(values.type)
        return pc.if_else(pc.is_nan(values), None, values) if is_floating else values
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def as_table(columns: Mapping[str, Any]) -> Any:
    """Columns of equal length as an Arrow table."""
    import pyarrow as pa

    return pa.table({name: as_arrow(values) for name, values in columns.items()})


def csv_bytes(table: Any, delimiter: str = ",", *, header: bool = True) -> bytes:
    """A table as the content of a CSV file; later rows of one without the `header`."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    table = pa.table({name: to_castable(table.column(name)) for name in table.column_names})
    buffer = pa.BufferOutputStream()
    names = [_quoted(name, delimiter) for name in table.column_names]
    head = (delimiter.join(names) + "\n").encode()
    options = pa_csv.WriteOptions(delimiter=delimiter, include_header=False, quoting_style="none")
    try:
        pa_csv.write_csv(table, buffer, options)
    except pa.ArrowInvalid:  # some text needs quotation marks; then Arrow puts all in them
        options.quoting_style = "needed"
        buffer = pa.BufferOutputStream()
        pa_csv.write_csv(table, buffer, options)
    content: bytes = buffer.getvalue().to_pybytes()
    return head + content if header else content


def _quoted(name: str, delimiter: str) -> str:
    if any(mark in name for mark in (delimiter, '"', "\n", "\r")):
        return '"' + name.replace('"', '""') + '"'
    return name


def parquet_bytes(table: Any) -> bytes:
    """A table as the content of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pa_parquet

    columns = {name: table.column(name) for name in table.column_names}
    columns |= {name: to_castable(cells) for name, cells in columns.items() if is_json(cells.type)}
    buffer = pa.BufferOutputStream()
    pa_parquet.write_table(pa.table(columns), buffer)
    content: bytes = buffer.getvalue().to_pybytes()
    return content
