"""CSV against Python's own reader of it, whatever the file holds and wherever its blocks end."""

import bz2
import codecs
import csv
import gzip
import io
import random
from itertools import pairwise

import pytest

from bigmodel.data.tabular.csv_dialect import detect_dialect
from bigmodel.data.tabular.csv_reader import _BlockFile, read_csv_batches
from bigmodel.data.tabular.table_file import as_strings, read_table
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data

ENDS = ["\n", "\r\n", "\r"]
PIECES = ["a", "é", "漢", " ", "7", "#", "'", "\r\n", "\r", "\n", '"', ",", ";", "\t", "|"]


def refuse(fault):
    raise DataError(fault)


def rows_read(path, block, encoding="utf-8"):
    batches = read_csv_batches(path, detect_dialect(path, "CSV", encoding), refuse, block)
    return [list(row) for batch in batches for row in zip(*batch.to_pydict().values(), strict=True)]


def rows_expected(content):
    rows = [row for row in csv.reader(io.StringIO(content, newline=""), delimiter=content[5]) if row]
    return [[value or None for value in row] for row in rows[1:]]


def a_file(draws):
    """A CSV of two columns, named so that its sixth character is its separator."""
    separator, end = draws.choice(",;\t|"), draws.choice(ENDS)
    lines = [separator.join(["first", "last"])]
    for _ in range(draws.randrange(1, 40)):
        values = ["".join(draws.choices(PIECES, k=draws.randrange(6))) for _ in range(2)]
        if draws.random() < 0.2:  # which Python and Arrow take for a part of a value that is not quoted
            values[0] = 'a"b'
        quoted = ['"' + value.replace('"', '""') + '"' for value in values]
        plain = [value == 'a"b' or (value.isalnum() and draws.random() < 0.5) for value in values]
        pairs = zip(plain, values, quoted, strict=True)
        lines.append(separator.join(value if bare else shown for bare, value, shown in pairs))
        lines += [""] * draws.randrange(3)
    return end.join(lines) + draws.choice(["", end])


@pytest.mark.parametrize("seed", range(150))
def test_rows_are_those_of_pythons_reader_whatever_the_block(tmp_path, seed):
    draws = random.Random(seed)
    content = a_file(draws)
    mark = draws.choice([b"", codecs.BOM_UTF8])
    (tmp_path / "a.csv").write_bytes(mark + content.encode())
    expected = rows_expected(content)
    for block in (*(draws.randrange(150, 400) for _ in range(8)), 1 << 20):
        assert rows_read(tmp_path / "a.csv", block) == expected


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_break_within_quotes_on_the_border_of_two_blocks(tmp_path, packed):
    content = "first,last\r\n" + '1,"a\r\nb"\r\n' * 200
    pack = gzip.compress if packed else bytes
    (tmp_path / "a.csv").write_bytes(pack(content.encode()))
    for block in range(100, 130):
        assert rows_read(tmp_path / "a.csv", block) == [["1", "a\r\nb"]] * 200


def test_blocks_are_the_file_and_none_ends_between_cr_and_lf():
    content = b"a\r\n\r\n\r\r\nb\r" * 7
    for size in range(2, 12):
        blocks = _BlockFile(io.BytesIO(content))
        found = list(iter(lambda blocks=blocks, size=size: blocks.read(size), b""))
        assert b"".join(found) == content
        assert all(0 < len(block) <= size for block in found)
        borders = pairwise(found)
        assert not any(one.endswith(b"\r") and two.startswith(b"\n") for one, two in borders)


TABLE = "name,größe\r\n" + "".join(f'Zoë {n},"{n}\r\n€"\r\n' for n in range(300))


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("cp1252", "cp1252"),
        ("utf-16", "utf-8"),  # a mark is found without a word
        ("utf-32", "utf-8"),
        ("utf-8-sig", "cp1252"),  # and is right where the word is wrong
        ("utf-16-le", "utf-16-le"),
        ("gb18030", "gb18030"),
        ("utf-7", "utf-7"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_encodings_of_tables(tmp_path, encoding, said, pack):
    text = TABLE.replace("€", "ö") if encoding == "gb18030" else TABLE
    (tmp_path / "a.csv").write_bytes(pack(text.encode(encoding)))
    expected = [[f"Zoë {n}", f"{n}\r\n{'ö' if encoding == 'gb18030' else '€'}"] for n in range(300)]
    for block in (100, 101, 102, 103, 1 << 20):
        assert rows_read(tmp_path / "a.csv", block, said) == expected


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_message_says_line_and_encoding_and_what_to_type_works(tmp_path, name, encoding):
    invalid = "é" if encoding != "latin-1" else "é\x81"
    plain = (
        f"a,b\n1,2\n3,{invalid}\n"
        if name == "a.csv"
        else f'{{"a": 1}}\n{{"a": 2}}\n{{"a": "{invalid}"}}\n'
    )
    (tmp_path / name).write_bytes(plain.encode(encoding))
    line = 1 if "16" in encoding else 3
    words = rf"not UTF-8: byte 0x\w\w in line {line}; likely .*: set data.encoding={encoding}$"
    with pytest.raises(DataError, match=words) as caught:
        read_table(tmp_path / name, "data.path")
    said = str(caught.value).rpartition("=")[2]
    if name == "a.csv":
        assert as_strings(read_table(tmp_path / name, "data.path", 0, said).column("b")) == [
            "2",
            invalid,
        ]


def test_a_byte_that_the_encoding_does_not_have_is_named_with_its_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n" + b"3,4\n" * 600_000 + b"5,\x81\n")
    with pytest.raises(DataError, match=r"not cp1252: byte 0x81 in line 600,003: .*data.encoding="):
        read_table(tmp_path / "a.csv", "data.path", 0, "cp1252")


def test_a_header_that_is_repeated_is_no_row(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\na,b\n3,4\na,b\n", encoding="utf-8")
    table = read_table(tmp_path / "a.csv", "data.path")
    assert as_strings(table.column("a")) == ["1", "3"]
    assert table.header_rows == [("Skipped", "2 rows of a.csv that repeat the header")]


def test_a_row_of_totals_is_told(tmp_path):
    (tmp_path / "a.csv").write_text("shop,sales\nx,2\ny,3\nTotal,5\n", encoding="utf-8")
    table = read_table(tmp_path / "a.csv", "data.path")
    assert table.header_rows == [
        (
            "Warning",
            f"{tmp_path / 'a.csv'}: its last row begins with 'Total'. Remove it if it is a total.",
        )
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.csv.zip", "unzip .*/a.csv.zip"), ("a.csv.bz2", "bunzip2 -k "), ("a.csv.xz", "unxz -k ")],
)
def test_other_packers_are_named(tmp_path, name, words):
    (tmp_path / name).write_bytes(bz2.compress(b"a,b\n1,2\n"))
    with pytest.raises(DataError, match=f"Unpack it: {words}"):
        read_table(tmp_path / name, "data.path")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_wide_encoding_needs_no_mark(tmp_path, name, order):
    text = {"a.csv": "größe,ort\n1,Köln\n", "a.jsonl": '{"größe": "1", "ort": "Köln"}\n'}[name]
    (tmp_path / name).write_bytes(text.encode(order))
    table = read_table(tmp_path / name, "data.path", encoding=order[:6])
    assert table.column_names == ["größe", "ort"]
    assert as_strings(table.column("ort")) == ["Köln"]


def test_a_wide_encoding_whose_order_cannot_be_told_is_asked_for(tmp_path):
    (tmp_path / "a.csv").write_bytes("漢字漢漢".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"a\.csv: .* without a byte-order mark.* utf-16-le, utf-16-be"):
        read_table(tmp_path / "a.csv", "data.path", encoding="utf-16")


@pytest.mark.parametrize(
    "encoding", ["punycode", "unicode_escape", "raw_unicode_escape", "utf7", "idna", "undefined",
                 "rot13", "base64", "no such"],
)  # fmt: skip
def test_what_encodes_no_texts_is_no_encoding(encoding):
    with pytest.raises(ConfigError, match=r"there is no such text encoding\. Supported are utf-8"):
        data.parse({"name": "table", "encoding": encoding})


def test_an_open_quotation_mark_is_told_where_blanks_stand_before_quotes(tmp_path):
    (tmp_path / "a.csv").write_text('a, b\n1, "x"\n2, "y\n3, z\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.csv: a quotation mark is left open, before 'y"):
        read_table(tmp_path / "a.csv", "data.path")
