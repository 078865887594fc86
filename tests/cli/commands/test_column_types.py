"""A column of any type, out of any kind of file, is written beside a prediction in any kind of file."""

import base64
import csv
import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmodel.data.tabular.json_values import json_values
from bigmodel.training.loop import fit
from tests.cli.commands.cli import Bigmodel
from tests.small_runs import built

ROWS = 40
NOON = datetime.datetime(2024, 2, 29, 12)


def integers(kind: Any, values: Any = (1, 2, 3, None)) -> Any:
    """Whole numbers, over and over, as something else that is stored so."""
    stored = pa.int32() if kind.bit_width == 32 else pa.int64()
    return pa.array(list(values) * (ROWS // len(values)), stored).cast(kind)


def repeated(values: list[Any], kind: Any = None) -> Any:
    return pa.array(values * (ROWS // len(values)), kind)


LARGE = 2_000_000_000_123_456_789
FAR = 3_000_000  # days: in the year 10183
TYPES: dict[str, Any] = {
    "int8": repeated([1, None], pa.int8()),
    "uint64": repeated([2**64 - 1, 0, None, 5], pa.uint64()),
    "half": repeated([0.5, None], pa.float16()),
    "float": repeated([0.5, float("nan"), None, 7.0], pa.float32()),
    "bool": repeated([True, None, False, True]),
    "null": pa.nulls(ROWS),
    "text": repeated(['a,"b"', "c\nd", None, "ä"]),
    "large_text": repeated(["a", None], pa.large_string()),
    "text_view": repeated(["a", None], pa.string_view()),
    "dictionary": repeated(["a", None, "b", "a"]).dictionary_encode(),
    "binary": repeated([b"\xff\x00", b"ab", None, b""], pa.binary()),
    "fixed_binary": repeated([b"ab", None], pa.binary(2)),
    "decimal": repeated([decimal.Decimal("1.50"), None]),
    "date": integers(pa.date32(), [0, 1, FAR, None]),
    "date64": integers(pa.date64(), [0, 86_400_000, 86_400_000 * FAR, None]),
    "seconds": integers(pa.timestamp("s"), [0, 86_400 * FAR, 10**12, None]),
    "nanoseconds": integers(pa.timestamp("ns"), [LARGE, 0, 1, None]),
    "in_zone": integers(pa.timestamp("ns", tz="Asia/Tokyo"), [LARGE, 0, 1, None]),
    "time": integers(pa.time32("s")),
    "time_ns": integers(pa.time64("ns")),
    "duration": integers(pa.duration("ns"), [-1, 93_784 * 10**9, None, 5]),
    "list": repeated([[1, None], [], None, [3]]),
    "list_of_times": repeated([[NOON], None], pa.list_(pa.timestamp("ns"))),
    "object": repeated([{"a": 1, "at": NOON}, {"a": None, "at": None}, None, {"a": 2, "at": NOON}]),
    "map": repeated([[("k", 1.5)], [], None, [("k", None)]], pa.map_(pa.string(), pa.float64())),
    "deep": repeated([[{"x": [1, 2]}], None], pa.list_(pa.struct([("x", pa.list_(pa.int64()))]))),
}  # fmt: skip


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has learnt of all of them, with the file it learnt from."""
    folder = tmp_path_factory.mktemp("types")
    table = pa.table(TYPES | {"x": np.arange(ROWS) % 7, "y": np.arange(ROWS) + 0.5})
    pq.write_table(table, folder / "new.parquet")
    run, _ = built(
        folder / "run", {"data": {"name": "table", "path": str(folder / "new.parquet"), "target": "y"}}
    )
    (folder / "run").mkdir()
    fit(run)
    return folder


@pytest.mark.parametrize("to", ["csv", "tsv", "parquet", "jsonl", "terminal"])
def test_every_type_comes_out(encoded: Path, bigmodel: Bigmodel, tmp_path: Path, to: str) -> None:
    output = tmp_path / f"out.{to}"
    where = [] if to == "terminal" else ["--output", output]
    said = bigmodel(
        "predict", encoded / "run", "--input", encoded / "new.parquet", "--device", "cpu", *where
    )
    assert said.status == 0, said.err
    stored = pq.read_table(encoded / "new.parquet")
    known = {name: json_values(stored.column(name)) for name in TYPES}
    if to == "parquet":
        found = pq.read_table(output)
        assert found.num_rows == ROWS
        for name, cells in known.items():
            assert json_values(found.column(name)) == cells, name
        return
    if to == "jsonl":
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        for name, cells in known.items():
            assert [line[name] for line in lines] == cells, name
        return
    text = said.out if to == "terminal" else output.read_text()
    rows = list(csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if to == "tsv" else ","))
    assert len(rows) == ROWS
    for name, cells in known.items():
        for row, cell in zip(rows, cells, strict=True):
            if isinstance(cell, list | dict):
                assert json.loads(row[name]) == cell, name
            elif isinstance(cell, str):
                assert row[name].removesuffix(".000") == cell.removesuffix(".000"), name
            else:
                assert (row[name] == "") == (cell in (None, "")), name


@pytest.mark.parametrize("to", ["csv", "parquet", "jsonl"])
def test_lists_and_objects_of_json_lines_come_out(bigmodel: Bigmodel, tmp_path: Path, to: str) -> None:
    lines = [
        {"x": i % 7, "y": i + 0.5, "tags": ["a"] * (i % 3), "who": {"n": {"m": [i]}}}
        for i in range(ROWS)
    ]
    path = tmp_path / "new.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    made, _ = built(tmp_path / "run", {"data": {"name": "table", "path": str(path), "target": "y"}})
    (tmp_path / "run").mkdir()
    fit(made)
    output = tmp_path / f"out.{to}"
    said = bigmodel("predict", tmp_path / "run", "--input", path, "--output", output, "--device", "cpu")
    assert said.status == 0, said.err
    if to == "csv":
        with output.open() as file:
            rows = list(csv.DictReader(file))
        found = [{"tags": json.loads(row["tags"]), "who": json.loads(row["who"])} for row in rows]
    elif to == "parquet":
        found = pq.read_table(output, columns=["tags", "who"]).to_pylist()
    else:
        found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["tags"], row["who"]) for row in found] == [
        (line["tags"], line["who"]) for line in lines
    ]


def test_cells_as_json_holds_them() -> None:
    assert json_values(TYPES["nanoseconds"])[0] == "2033-05-18 03:33:20.123456789"
    assert json_values(TYPES["in_zone"])[0] == "2033-05-18 12:33:20.123456789+0900"
    assert json_values(TYPES["date"])[2] == "10183-09-21"
    assert json_values(TYPES["seconds"])[2] == "33658-09-27T01:46:40"
    assert json_values(TYPES["duration"])[:2] == ["-1 days +23:59:59.999999999", "1 days 02:03:04"]
    assert json_values(TYPES["binary"])[:2] == [base64.b64encode(b"\xff\x00").decode(), "ab"]
    assert json_values(TYPES["map"]) == [{"k": 1.5}, {}, None, {"k": None}] * (ROWS // 4)
    assert json_values(TYPES["deep"])[0] == [{"x": [1, 2]}]
    assert json_values(TYPES["float"])[:4] == [0.5, None, None, 7.0]
