"""Columns of JSON lines, and of folders, with cells of several kinds, from training to prediction."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmodel.errors import DataError
from bigmodel.training.loop import fit
from tests.cli.commands.cli import Bigmodel
from tests.small_runs import built

ROWS = 80


def lines_with(invalid: dict[int, Any], name: str = "x") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"x": i + 0.5, "z": i % 7, "y": 2.0 * i + 0.5} for i in range(ROWS)]
    for row, value in invalid.items():
        rows[row][name] = value
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def trained(folder: Path, path: Path, **said: Any) -> list[str]:
    """What the header tells of a run on a table."""
    made, _ = built(folder, {"data": {"name": "table", "path": str(path), "target": "y", **said}})
    folder.mkdir()
    fit(made)
    return [f"{label}: {line}" for label, line in made.dataset.header_rows]


@pytest.mark.parametrize("invalid", ["n.a.", True, ["a"], {"a": 1}])
def test_an_odd_cell_among_numbers_is_missing_and_comes_out_as_it_was(
    bigmodel: Bigmodel, tmp_path: Path, invalid: Any
) -> None:
    rows = lines_with({4: "4.5", 6: None, 11: invalid})
    del rows[7]["x"]
    path = write(tmp_path / "a.jsonl", rows)
    told = "\n".join(trained(tmp_path / "run", path))
    written = json.dumps(invalid) if not isinstance(invalid, str) else invalid
    assert f"column 'x': 1 of {ROWS - 2} cells is not a number and taken for missing" in told
    assert f"the first in row 11 (counted from 0): {written!r}" in told
    assert "Columns: 2 numbers" in told
    for to in ("jsonl", "csv", "parquet"):
        output = tmp_path / f"out.{to}"
        said = bigmodel(
            "predict", tmp_path / "run", "--input", path, "--output", output, "--device", "cpu"
        )
        assert said.status == 0, said.err
        if to == "jsonl":
            found = [json.loads(line)["x"] for line in output.read_text().splitlines()]
            assert found == [row.get("x") for row in rows]
        elif to == "csv":
            with output.open() as file:
                cells = [row["x"] for row in csv.DictReader(file)]
            assert cells[3:8] == ["3.5", "4.5", "5.5", "", ""]
            assert cells[11] == written
        else:
            cells = pq.read_table(output).column("x").to_pylist()
            assert cells[3:8] == ["3.5", "4.5", "5.5", None, None]
            assert cells[11] == written


def test_a_number_among_words_is_a_word(tmp_path: Path) -> None:
    rows = [{"x": ["red", "blue", 5][i % 3], "y": i + 0.5} for i in range(ROWS)]
    told = "\n".join(trained(tmp_path / "run", write(tmp_path / "a.jsonl", rows)))
    assert "Columns: 1 category (x 3)" in told


def test_an_odd_target_leaves_its_row_out(bigmodel: Bigmodel, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines_with({9: "unknown"}, "y"))
    told = "\n".join(trained(tmp_path / "run", path))
    assert f"target 'y': 1 of {ROWS} cells is not a number and its row is left out" in told
    said = bigmodel("eval", tmp_path / "run", "--data", path, "--device", "cpu")
    assert said.status == 0, said.err


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    write(path.with_suffix(".jsonl"), rows)


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.with_suffix(".csv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    if any(isinstance(row["x"], str) for row in rows):
        rows = [{**row, "x": str(row["x"])} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))


@pytest.mark.parametrize("save", [_jsonl, _csv, _parquet])
def test_the_kinds_of_columns_are_agreed_over_the_files_of_a_folder(
    bigmodel: Bigmodel, tmp_path: Path, save: Any
) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    rows = lines_with({45: "n.a."})
    save(folder / "a", rows[:40])
    save(folder / "b", rows[40:])
    told = "\n".join(trained(tmp_path / "run", folder))
    assert (
        f"column 'x': 1 of {ROWS} cells is not a number and taken for missing, the first in row 45"
        in told
    )
    output = tmp_path / "out.jsonl"
    said = bigmodel(
        "predict", tmp_path / "run", "--input", folder, "--output", output, "--device", "cpu"
    )
    assert said.status == 0, said.err
    cells = [json.loads(line)["x"] for line in output.read_text().splitlines()]
    assert cells[45] == "n.a."
    assert [float(cell) for place, cell in enumerate(cells) if place != 45] == [
        row["x"] for place, row in enumerate(rows) if place != 45
    ]


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize(
    ("invalid", "place"),
    [("x", "data.columns.x=number"), ("y", "data.task=values"), ("d", "data.columns.d=date")],
)
def test_the_tip_for_an_odd_cell_of_a_short_table_works_as_printed(
    tmp_path: Path, invalid: str, place: str, others: bool
) -> None:
    rows = [{"x": i + 0.5, "d": f"2024-01-{i + 1:02}", "z": i % 4, "y": 2 * i} for i in range(15)]
    rows[4][invalid] = "unknown"
    kept = {"y", invalid if invalid != "y" else "x"}
    rows = [{k: v for k, v in row.items() if others or k in kept} for row in rows]
    path = write(tmp_path / "a.jsonl", rows)
    said = {"task": "values"} if invalid != "y" else {}
    try:
        told = trained(tmp_path / "run", path, **said)
    except DataError as error:
        told = [str(error)]
    tip = next(line for line in told if "1 of 15 cells" in line and line.endswith(place))
    assert "the first in row 4 (counted from 0): 'unknown'" in tip
    typed = tip.rsplit(" ", 1)[1].removeprefix("data.")
    key, value = typed.split("=")
    said |= {"columns": {invalid: value}} if key.startswith("columns.") else {key: value}
    told = trained(tmp_path / "again", path, **said)
    assert any("1 of 15 cells is not" in line and invalid in line for line in told)
    assert not any(line.endswith(place) for line in told)
