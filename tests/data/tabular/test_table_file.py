"""Files of columns: every kind read alike, and what cannot be read refused with its place."""

import gc
import gzip
import json
import re
from types import FunctionType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmodel.data.tabular.json_values import json_values
from bigmodel.data.tabular.table_file import as_strings, check_column, get_column, name_list, read_table
from bigmodel.errors import DataError

ROWS = [{"name": "Ann", "size": 1.5, "born": 7}, {"name": None, "size": 2.0, "born": 8}]


def csv_of(separator):
    lines = [["name", "size", "born"], ["Ann", "1.5", "7"], ["", "2.0", "8"]]
    return "\n".join(separator.join(line) for line in lines).encode()


def parquet():
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), file)
    return file.getvalue()


def twice():
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table([[1], [2], [3]], names=["x", "x", "y"]), file)
    return file.getvalue()


KINDS = {
    "csv": csv_of(","),
    "txt": csv_of(";"),
    "tsv": csv_of("\t"),
    "parquet": parquet(),
    "jsonl": "\n".join(json.dumps(row) for row in ROWS).encode(),
}


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(table):
    return [
        list(row) for row in zip(*(as_strings(table.column(n)) for n in table.column_names), strict=True)
    ]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_columns(tmp_path, kind, packed):
    content = gzip.compress(KINDS[kind]) if packed else KINDS[kind]
    table = read_table(written(tmp_path, f"a.{kind}{'.gz' if packed else ''}", content), "data.path")
    assert table.column_names == ["name", "size", "born"]
    assert table.num_rows == 2
    assert as_strings(table.column("name")) == ["Ann", None]
    assert [float(size) for size in as_strings(table.column("size"))] == [1.5, 2.0]
    assert as_strings(table.column("born")) == ["7", "8"]


def test_a_csv_stays_as_it_stands(tmp_path):
    content = '\ufeff id ,"a ""b"",\nc",\n007," x ",NA\n08,"two\nlines",\n\n'
    table = read_table(written(tmp_path, "a.csv", content), "data.path")
    assert table.column_names == ["id", 'a "b",\nc', "column 3"]
    assert rows_of(table) == [["007", " x ", "NA"], ["08", "two\nlines", None]]


def test_nothing_is_guessed_from_the_first_rows(tmp_path):
    lines = ["a"] + ["1"] * 400_000 + ["2.5", "word"]
    found = read_table(written(tmp_path, "a.csv", "\n".join(lines)), "data.path").column("a")
    assert as_strings(found)[-3:] == ["1", "2.5", "word"]


def test_a_row_may_be_longer_than_a_block(tmp_path):
    long = "y" * 3_000_000
    content = "a,b\n" + "1,x\n" * 400_000 + f'2,"{long}"\n3,z\n'
    found = as_strings(read_table(written(tmp_path, "a.csv", content), "data.path").column("b"))
    assert len(found) == 400_002
    assert found[-2:] == [long, "z"]


def test_the_files_of_a_folder_are_put_one_below_the_other(tmp_path):
    written(tmp_path, "b.csv", "y,x\n4,3\n")
    written(tmp_path, "a.csv", "x,y\n1,2\n")
    written(tmp_path, "notes.md", "not a table")
    table = read_table(tmp_path, "data.path")
    assert rows_of(table) == [["1", "2"], ["3", "4"]]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "the folder holds no table"),
        ({"a.csv": "x\n1", "b.tsv": "x\n1"}, r"several kinds \(CSV, TSV\)"),
        ({"a.csv": "x,y\n1,2", "b.csv": "x,z\n1,2"}, r"b.csv and a.csv differ in y, z"),
    ],
)
def test_folders_that_are_no_table(tmp_path, files, words):
    for name, content in files.items():
        written(tmp_path, name, content)
    with pytest.raises(DataError, match=words):
        read_table(tmp_path, "data.path")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "\n\n", "the file is empty"),
        ("a.csv", "a,b\n", r"has columns \(a, b\), but no rows"),
        ("a.csv", "a,a\n1,2\n", "column 'a' occurs twice"),
        ("a.csv", "1,2\n3,4\n", "first row holds only numbers .* Add a header"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"row 1 \(counted from 0.*\) has 3 fields, but there are 2"),
        ("a.csv", "a,b\n1\n", r"row 0 .* has 1 field, but there are 2 columns. Is a value missing"),
        ("a.csv", 'a,b\n1,"x\n2,3\n', r"a quotation mark is left open, before 'x\\n2,3"),
        ("a.csv", "a,b\n1,né\n".encode("cp1252"), r"not UTF-8: byte 0xe9 in line 2; likely cp1252: set"),
        (
            "a.csv.gz",
            gzip.compress("naïve\n1\n".encode("cp1252"), mtime=0),
            r"byte 0xef in line 1; likely cp1252: set data.encoding=cp1252$",
        ),
        ("a.csv", "a,b\n1,2\n3,\x00\n", "byte 10 .* is NUL, which does not occur in text"),
        ("a.csv", "a\n\x81\n".encode("latin-1"), "likely latin-1"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "not UTF-8: byte 0x00 in line 1; likely utf-16-le"),
        ("a.csv.gz", gzip.compress(b"a\n1\n" * 99, mtime=0)[:-9], "gzip file is damaged or cut short"),
        ("a.jsonl", '{"a":"né"}'.encode("cp1252"), "not UTF-8: byte 0xe9 in line 1"),
        ("a.jsonl", '{"a":1}\n{"a":2\n', r"line 1 \(counted from 0\) is not JSON: .*'\{\"a\":2'"),
        ("a.jsonl", '{"a":1}\n[2]\n', r"line 1 .* is not an object but a list"),
        ("a.jsonl", "{}\n", "no line holds an object with a key"),
        ("a.json", '[{"a": 1}]', r"one JSON list.* jq -c '.\[\]' /.*/a.json > /.*/a-lines.jsonl"),
        ("a.jsonl", '[{"a": 1}]', r"one JSON list.* jq -c '.\[\]' /.*/a.jsonl > /.*/a-lines.jsonl"),
        ("a.parquet", twice(), "column 'x' occurs twice"),
        ("a.parquet", "PAR1 no", "not a Parquet file, or a damaged one"),
        ("a.xlsx", "x", r"data.path=.*a.xlsx: not a table format .* Save the sheet as CSV. Supported"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, name, content, words):
    path = written(tmp_path, name, content)
    with pytest.raises(DataError, match=f"(?s){words}") as caught:
        read_table(path, "data.path")
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "a,b\n1,2\n1\n1,2,3\n5,6\n"), ("a.jsonl", '{"a":1,"b":2}\n{\n3\n{"a":5,"b":6}\n')],
)
def test_some_unreadable_rows_may_be_left_out(tmp_path, name, content):
    path = written(tmp_path, name, content)
    table = read_table(path, "data.path", max_bad=2)
    assert rows_of(table) == [["1", "2"], ["5", "6"]]
    assert table.left_out == {"unreadable row": 2}
    with pytest.raises(DataError, match=r"data.max_bad=1"):
        read_table(path, "data.path", max_bad=1)


def test_a_column_that_is_not_there(tmp_path):
    table = read_table(written(tmp_path, "a.csv", csv_of(",")), "data.path")
    assert get_column(table, "born", "data.target").to_pylist() == ["7", "8"]
    check_column(table, "born", "data.target")
    expected = "data.target=bron: {} has no such column. Did you mean 'born'? Known: name, size, born."
    with pytest.raises(DataError, match=re.escape(expected.format(table.path))):
        get_column(table, "bron", "data.target")


def test_many_names_are_cut_short():
    assert name_list(["a", "b"]) == "a, b"
    assert name_list([str(i) for i in range(40)]).endswith("28, 29, … (40 in all)")


def test_threads_of_arrow_are_never_the_last_to_drop_a_function(tmp_path):
    """Else the process aborts where Python ends while they do, as it often did after a message."""
    read_table(written(tmp_path, "a.csv", csv_of(",")), "data.path")
    gc.collect()
    functions = [one for one in gc.get_objects() if type(one) is FunctionType]
    assert any(one.__qualname__ == "_arrow_rows.<locals>.note" for one in functions)


def test_what_systems_leave_beside_tables_is_none(tmp_path):
    written(tmp_path, "a.csv", "x\n1\n")
    for name in ("._a.csv", ".hidden.csv", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    assert read_table(tmp_path, "data.path").files == [tmp_path / "a.csv"]


def test_files_of_a_folder_whose_columns_are_of_several_kinds(tmp_path):
    pq.write_table(pa.table({"a": [1, 2], "b": [True, None]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": ["3", "x"], "b": [0, 1]}), tmp_path / "b.parquet")
    table = read_table(tmp_path, "data.path")
    assert table.column("a").to_pylist() == ["1", "2", "3", "x"]
    assert table.column("b").to_pylist() == ["true", None, "0", "1"]
    assert json_values(table.raw_column("a")) == [1, 2, "3", "x"]
