"""The header, the separator and what is above the header are inferred from the beginning of a file."""

import pytest

from bigmodel.data.tabular.csv_dialect import detect_dialect
from bigmodel.data.tabular.table_file import as_strings, read_table

HEADINGS = {
    "excel": ("sep=;\r\na;b\r\n1;2\r\n3,5;4\r\n", [["1", "2"], ["3,5", "4"]]),
    "excel, other": ("sep=|\na|b\n1|2\n", [["1", "2"]]),
    "title": ("Sales of 2020\na,b\n1,2\n3,4\n", [["1", "2"], ["3", "4"]]),
    "title over columns": ("Sales of 2020,,\n\na,b,c\n1,2,3\n", [["1", "2", "3"]]),
    "title with a comma, semicolons": ("Sales, 2020\na;b;c;d\n1;2;3;4\n5;6;7;8\n", None),
    "comment": ("# made by us\n# on Monday, at noon\na,b\n1,2\n", [["1", "2"]]),
    "blank lines": ("\n\r\n  \na,b\n1,2\n", [["1", "2"]]),
    "blanks before quotes": ('a, b\n1, "x, y"\n2, "z"\n', [["1", "x, y"], ["2", "z"]]),
    "separators at the end": ("a;b\n1;2;\n3;4;\n", [["1", "2"], ["3", "4"]]),
    "comments with commas": (
        "# made by us, at noon\n# on a Monday\na,b\n1,2\n3,4\n",
        [["1", "2"], ["3", "4"]],
    ),
    "comment as wide as the rows": ("# made by us, at noon\na,b\n1,2\n3,4\n", [["1", "2"], ["3", "4"]]),
    "tabs": ("a\tb\n1\t2\n", [["1", "2"]]),
    "pipes": ("a|b\n1|2\n", [["1", "2"]]),
}


@pytest.mark.parametrize("case", HEADINGS)
def test_lines_above_a_header_are_skipped(tmp_path, case):
    content, rows = HEADINGS[case]
    (tmp_path / "a.csv").write_text(content, encoding="utf-8", newline="")
    table = read_table(tmp_path / "a.csv", "data.path")
    assert table.column_names[:2] == ["a", "b"]
    columns = [as_strings(table.column(name)) for name in table.column_names]
    found = [list(row) for row in zip(*columns, strict=True)]
    assert found == (rows or [["1", "2", "3", "4"], ["5", "6", "7", "8"]])
    told = case not in ("blank lines", "tabs", "pipes")
    assert bool(table.header_rows) == told
    assert not told or all(label == "Skipped" for label, _ in table.header_rows)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("#id,size\n1,2\n3,4\n", ["#id", "size"]),
        ("#name,color\nfoo,red\nfoo,blue\n", ["#name", "color"]),
        (",y\nr0,yes\nr1,no\n", ["column 1", "y"]),
        (",a,y\nr0,red,yes\nr1,blue,no\n", ["column 1", "a", "y"]),
        ("text\nhello\nyou\n", ["text"]),
        ("size\n1\n2\n", ["size"]),
        ("a,,\n1,2,3\n4,5,6\n", ["a", "column 2", "column 3"]),
        ('"a\nb","c ""d"""\n1,2\n', ["a\nb", 'c "d"']),
        ("a,b\nx,y\nz,w\n", ["a", "b"]),
    ],
)
def test_a_header_is_not_a_line_above_one(tmp_path, content, names):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8", newline="")
    found = detect_dialect(tmp_path / "a.csv", "CSV", "utf-8")
    assert found.names == names
    assert found.above == []
