"""Words that stand for a missing value: which ones, said by whom, and counted."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmodel.data.reader import from_plain, to_plain
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data


def table_of(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def built(path, **values):
    return data.build(data.parse({"name": "table", "path": str(path), "target": "y", **values}))


def continents(path, classes=("EU", "NA", "AS", ""), count=80):
    return table_of(path, [{"x": i / 4, "y": classes[i % len(classes)]} for i in range(count)])


def of_label(dataset, label):
    return [line for name, line in dataset.header_rows if name == label]


@pytest.mark.parametrize("task", ["auto", "classes"])
def test_na_is_missing_unless_it_is_said_to_be_a_class_and_that_is_told(tmp_path, task):
    path = continents(tmp_path / "a.csv")
    dataset = built(path, task=task)
    assert dataset.spec.target.names == ("AS", "EU")
    assert dataset.left_out == {"no target": 40}
    assert of_label(dataset, "Missing") == ["y: 20 'NA'"]
    assert of_label(dataset, "Warning") == [
        "target 'y': 20 'NA' taken for missing, and these rows left out. If it is a class:"
        " 'data.missing=[]'"
    ]
    kept = built(path, task=task, missing=[])
    assert kept.spec.target.names == ("AS", "EU", "NA")
    assert kept.left_out == {"no target": 20}
    assert of_label(kept, "Missing") == of_label(kept, "Warning") == []
    found = from_plain(to_plain(kept.reader)).read(path, with_targets=True)
    assert found.left_out == {"no target": 20}
    assert found.part.targets[:3].tolist() == [1, 2, 0]


def test_where_na_is_all_there_is_beside_a_class_the_way_out_is_said(tmp_path):
    path = continents(tmp_path / "a.csv", ("EU", "NA"))
    with pytest.raises(DataError, match=r"'EU'.*40 'NA' taken for missing.*'data\.missing=\[\]'"):
        built(path, task="classes")
    assert built(path, missing=[]).spec.target.names == ("EU", "NA")


def test_na_may_be_a_class_among_numbers(tmp_path):
    path = continents(tmp_path / "a.csv", ("1", "NA", "2"))
    assert built(path, task="classes").spec.target.names == ("1", "2")
    assert built(path, task="classes", missing=[]).spec.target.names == ("1", "2", "NA")


def test_what_is_taken_for_missing_is_counted_by_word_in_every_column(tmp_path):
    words = ["NA", "None", "-", "NA", ""]
    rows = [
        {
            "size": words[i % 5] if i % 2 else i * 1.5,
            "built": "n/a" if i % 10 == 3 else f"2020-01-{1 + i % 28:02d}",
            "city": ["Rome", "NA"][i % 2],
            "y": "?" if i % 10 == 5 else i / 4,
        }
        for i in range(100)
    ]
    dataset = built(table_of(tmp_path / "a.csv", rows))
    assert of_label(dataset, "Missing") == [
        "size: 20 'NA', 10 '-', 10 'None'; built: 10 'n/a'; y: 10 '?'"
    ]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_own_words_are_missing_in_columns_of_every_kind(tmp_path, ending):
    plain = ending == "parquet"
    rows = [
        {
            "size": -999.0 if i % 4 == 1 else i * 1.5,
            "built": "unknown" if i % 4 == 1 else f"2020-01-{1 + i % 28:02d}",
            "city": ["Rome", "unknown", "Bonn", "NA"][i % 4],
            "y": "unknown" if i % 8 == 5 else str(i % 3) + "a",
        }
        for i in range(96)
    ]
    blank = [
        {
            name: (None if plain else "") if value in ("unknown", -999.0) else value
            for name, value in row.items()
        }
        for row in rows
    ]
    said = {"missing": ["unknown", "-999"] if plain else ["unknown", -999.0]}
    dataset = built(table_of(tmp_path / f"a.{ending}", rows), **said)
    expected = built(table_of(tmp_path / f"b.{ending}", blank), missing=[])
    assert dataset.reader.columns == expected.reader.columns
    assert dataset.left_out == expected.left_out == {"no target": 12}
    assert dataset.train.inputs.equal(expected.train.inputs)
    found = from_plain(to_plain(dataset.reader)).read(tmp_path / f"a.{ending}", with_targets=True)
    assert found.part.inputs.equal(
        expected.reader.read(tmp_path / f"b.{ending}", with_targets=True).part.inputs
    )
    assert found.columns["city"][1].as_py() == "unknown"  # as it stands there
    number = "-999" if plain else "-999.0"
    assert of_label(dataset, "Missing") == [
        f"size: 24 '{number}'; built: 24 'unknown'; city: 24 'unknown'; y: 12 'unknown'"
    ]


def test_words_for_missing_are_texts():
    with pytest.raises(ConfigError, match=r"data\.missing"):
        data.parse({"name": "table", "missing": [["a"]]})


@pytest.mark.parametrize(
    ("mark", "cells"),
    [("-999", ["1.5", "-999.0", "2"]), ("-999", ["1,5", "-999,0", "2"]),
     ("-999.0", ["1.500", "-999.000", "2"]), ("1", ["1,000.5", "1.0", "1,000"]),
     ("-999", ["1.5 kg", "-999 kg", "2 kg"]), ("-999", ["7", "-999", "2"])],
)  # fmt: skip
def test_a_number_is_missing_however_the_column_writes_it(tmp_path, mark, cells):
    rows = [{"size": f'"{cells[i % 4 % 3]}"', "y": i % 3 + 10} for i in range(80)]
    path = table_of(tmp_path / "a.csv", rows)
    dataset = built(path, missing=[mark])
    assert of_label(dataset, "Missing") == [f"size: 20 '{mark}'"]
    missing = dataset.reader.features.names.index("size (missing)")
    found = from_plain(to_plain(dataset.reader)).read(path, with_targets=True)
    assert found.part.inputs[:, missing].tolist() == [float(i % 4 == 1) for i in range(80)]


def test_a_word_for_missing_that_stands_nowhere_is_told(tmp_path):
    path = continents(tmp_path / "a.csv", ("EU", "AS"))
    warning = f"data.missing: 'unknwon' and '-999' occur in no column of {path}"
    assert of_label(built(path, missing=["unknwon", "3.5", "-999"]), "Warning")[0] == warning
    assert of_label(built(path, missing=["3.5"]), "Warning") == []


def test_words_for_missing_come_to_the_usual_ones(tmp_path):
    dataset = built(continents(tmp_path / "a.csv"), missing=["3.5"])
    assert dataset.spec.target.names == ("AS", "EU")
    assert of_label(dataset, "Missing") == ["x: 1 '3.5'; y: 20 'NA'"]
