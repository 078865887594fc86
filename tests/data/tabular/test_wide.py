"""A table of many columns is read in time that grows with its cells, and with nothing beyond."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bigmodel.data.tabular.column_storage import SpooledColumns
from bigmodel.data.tabular.reader import TableReader
from bigmodel.data.tabular.table_file import Table, read_table
from bigmodel.registry import data


class NotSearched(list[str]):
    """Names that nobody looks through from the first on, once for each column."""

    def __contains__(self, name: object) -> bool:
        raise AssertionError("a list was searched")

    def index(self, *_: object) -> int:
        raise AssertionError("a list was searched")


def written(folder: Path, columns: int, rows: int = 20) -> Path:
    values = np.random.default_rng(0).normal(size=(rows, columns)).round(3)
    path = folder / f"{columns}.csv"
    lines = [",".join([*(f"c{place}" for place in range(columns)), "y"])]
    lines += [",".join([*map(str, row), str(place % 2)]) for place, row in enumerate(values.tolist())]
    path.write_text("\n".join(lines) + "\n")
    return path


def calls(path: Path) -> int:
    """How many functions are called, Python's and C's, to read a table and learn of its columns."""
    config, count = data.parse({"name": "table", "path": str(path), "target": "y"}), 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    data.build(config)  # once for what is made at the first time
    sys.setprofile(note)
    try:
        data.build(config)
    finally:
        sys.setprofile(None)
    return count


def test_four_times_the_columns_take_four_times_the_calls(tmp_path: Path) -> None:
    few, many = (calls(written(tmp_path, columns)) for columns in (100, 400))
    assert many < 4.2 * few


def test_no_column_is_searched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, made = written(tmp_path, 30), []
    read_unpacked, read_table = SpooledColumns.__init__, Table.__init__

    def unpacked(self: SpooledColumns, *arguments: object) -> None:
        read_unpacked(self, *arguments)
        self.names = NotSearched(self.names)

    def table(self: Table, *arguments: object) -> None:
        read_table(self, *arguments)
        self.column_names = NotSearched(self.column_names)
        made.append(self)

    monkeypatch.setattr(SpooledColumns, "__init__", unpacked)
    monkeypatch.setattr(Table, "__init__", table)
    reader = data.build(data.parse({"name": "table", "path": str(path), "target": "y"})).reader
    assert isinstance(reader, TableReader)
    assert reader.read(path, with_targets=True).part.inputs.shape == (20, 30)
    assert len(made) == 2


def test_blocks_of_a_wide_table_are_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bigmodel.data.tabular import csv_reader

    monkeypatch.setattr(csv_reader, "BLOCK_SIZES", (2000, 4000))
    table = read_table(written(tmp_path, 100, rows=200), "data.path")
    assert table.num_rows == 200
    assert [len(source._places) for source in table.sources] == [1]
    assert table.column("c99").to_pylist()[-1] == table.column("c99")[199].as_py()


def test_a_message_names_the_first_columns_of_many(tmp_path: Path) -> None:
    config = data.parse({"name": "table", "path": str(written(tmp_path, 400)), "target": "y"})
    reader = data.build(config).reader
    other = tmp_path / "other.csv"
    other.write_text("z,y\n1,0\n2,1\n")
    with pytest.raises(Exception, match=r"no column 'c0'.* It reads c0, .*, … \(400 in all\)") as error:
        reader.read(other, with_targets=True)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("columns", [7, 8, 17])
def test_each_number_is_in_its_row_and_column(tmp_path, columns):
    path = written(tmp_path, columns, rows=3000)
    config = data.parse({"name": "table", "path": str(path), "target": "y", "normalize": False})
    dataset = data.build(config)
    inputs = np.concatenate(
        [part.take(slice(0, len(part)))[0].numpy() for part in dataset.parts.values()]
    )
    expected = np.loadtxt(path, np.float32, delimiter=",", skiprows=1)[:, :-1]
    np.testing.assert_array_equal(*(rows[np.lexsort(rows.T)] for rows in (inputs, expected)))
