"""Columns as the content of files; `test_output_files` has what users see of it."""

import pyarrow as pa

from bigmodel.reporting.table_bytes import as_arrow, as_table, csv_bytes


def test_values_of_several_types_become_text() -> None:
    assert as_arrow([1, "a", None]).to_pylist() == ["1", "a", None]
    assert as_arrow([1, 2]).type == pa.int64()


def test_later_rows_of_a_file_have_no_header() -> None:
    table = as_table({"x": [1, 2], "name": ["a", 'b"']})
    assert csv_bytes(table, header=False) == csv_bytes(table).split(b"\n", 1)[1]
