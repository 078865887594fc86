"""JSON lines: the type of a column depends on all of its values, and numbers keep their digits."""

import json

import pytest

from bigmodel.data.tabular.json_values import json_values
from bigmodel.data.tabular.table_file import as_strings, read_table


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_integers_and_floats_make_one_column(tmp_path):
    lines = ['{"a": 1, "d": "2020-01-31"}'] * 500_000 + ['{"a": 2.5, "d": "soon", "b": true}', ""]
    table = read_table(written(tmp_path, "a.jsonl", "\n".join(lines)), "data.path")
    assert table.column("a").to_pylist()[-2:] == [1.0, 2.5]
    assert table.column("b").to_pylist()[-2:] == [None, True]
    assert table.column("d").to_pylist()[-2:] == ["2020-01-31", "soon"]


def test_a_type_may_change_late_in_the_file(tmp_path):
    lines = [json.dumps({"a": 1, "b": "b" * 1000})] * 12_000 + ['{"a": "z"}']
    found = read_table(written(tmp_path, "a.jsonl", "\n".join(lines)), "data.path").column("a")
    assert found.slice(0, 2).to_pylist() == ["1", "1"]
    assert found.slice(11_999).to_pylist() == ["1", "z"]


@pytest.mark.parametrize("block", [40, 1 << 20])
def test_large_integers_keep_their_digits(tmp_path, monkeypatch, block):
    monkeypatch.setattr("bigmodel.data.tabular.json_lines._BLOCK", block)
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"a": 9007199254740993, "b": 18446744073709551617, "c": 9007199254740993,'
        ' "d": 0.12345678901234567}\n'
        '{"a": 1.50, "b": 18446744073709551618, "c": 1, "d": 2}\n\n'
        '{"a": null, "b": -18446744073709551619, "c": 2}\n'
    )
    table = read_table(path, "data.path")
    assert table.column("a").to_pylist() == ["9007199254740993", "1.50", None]
    assert table.column("b").to_pylist() == [
        "18446744073709551617",
        "18446744073709551618",
        "-18446744073709551619",
    ]
    assert table.column("c").to_pylist() == [9007199254740993, 1, 2]
    assert table.column("d").to_pylist() == [0.12345678901234567, 2.0, None]
    path.write_text('{"b": 18446744073709551617}\n{"b": 18446744073709551618}\n')
    assert read_table(path, "data.path").column("b").to_pylist() == [
        "18446744073709551617",
        "18446744073709551618",
    ]


@pytest.mark.parametrize("block", [25, 1 << 20])
def test_values_of_several_types_make_one_column(tmp_path, monkeypatch, block):
    monkeypatch.setattr("bigmodel.data.tabular.json_lines._BLOCK", block)
    rows = [
        '{"n": 1, "a": 1.50, "o": {"a": 1}}',
        '{"a": "z", "b": true, "h": 1e400}',
        "",
        '{"a": "1.5", "b": 0, "o": {"a": "z"}, "h": 2}',
        '{"a": null, "n": 2, "b": null}',
        '{"a": [1.5, "\u00e9"], "n": 3}',
        '{"a": false}',
    ]
    table = read_table(written(tmp_path, "a.jsonl", "\n".join(rows)), "data.path")
    assert table.column_names == ["n", "a", "o", "b", "h"]
    assert table.column("n").to_pylist() == [1, None, None, 2, 3, None]
    assert table.column("a").to_pylist() == ["1.50", "z", "1.5", None, '[1.5, "é"]', "false"]
    assert table.column("b").to_pylist() == [None, "true", "0", None, None, None]
    assert table.column("o").to_pylist() == ['{"a": 1}', None, '{"a": "z"}', None, None, None]
    assert table.column("h").to_pylist() == [None, "1e400", "2", None, None, None]
    assert json_values(table.raw_column("a")) == [1.5, "z", "1.5", None, [1.5, "é"], False]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-be"])
def test_encodings(tmp_path, encoding):
    (tmp_path / "a.jsonl").write_bytes('{"a": "é\u2026"}\n{"a": "b"}'.encode(encoding))
    table = read_table(tmp_path / "a.jsonl", "data.path", 0, encoding)
    assert as_strings(table.column("a")) == ["é\u2026", "b"]
