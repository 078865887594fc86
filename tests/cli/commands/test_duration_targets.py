"""A target of durations is a real value in seconds, from training to prediction."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from bigmodel.training.loop import fit
from tests.cli.commands.cli import Bigmodel
from tests.small_runs import built

ROWS = 80
SECONDS = [60 * (i + 1) for i in range(ROWS)]


def as_pandas(seconds: int) -> str:
    return f"{seconds // 86_400} days {datetime.timedelta(seconds=seconds % 86_400)!s:0>8}"


def as_iso(seconds: int) -> str:
    return f"PT{seconds // 3600}H{seconds // 60 % 60}M"


def table_of(took: Any) -> pa.Table:
    return pa.table({"x": [i + 0.5 for i in range(ROWS)], "took": took})


def save(table: pa.Table, path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        pa_csv.write_csv(table, path)
    return path


def trained(folder: Path, path: Path, **said: Any) -> Any:
    made, _ = built(folder, {"data": {"name": "table", "path": str(path), "target": "took", **said}})
    folder.mkdir()
    fit(made)
    return made


@pytest.mark.parametrize("kind", ["pandas", "iso", "parquet"])
def test_durations_are_real_values_in_seconds(bigmodel: Bigmodel, tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        took: Any = pa.array([1000 * some for some in SECONDS], pa.duration("ms"))
    else:
        took = [{"pandas": as_pandas, "iso": as_iso}[kind](some) for some in SECONDS]
    path = save(table_of(took), tmp_path / ("a.parquet" if kind == "parquet" else "a.csv"))
    made = trained(tmp_path / "run", path)
    told = dict(made.dataset.header_rows)
    assert told["Target"] == "took, a real value in seconds (duration; as classes: data.task=classes)"
    spec = made.dataset.spec.target
    train = made.dataset.parts["train"].targets * spec.std[0] + spec.mean[0]
    assert {round(some) for some in train.flatten().tolist()} <= set(SECONDS)

    output = tmp_path / "out.csv"
    said = bigmodel("predict", tmp_path / "run", "--input", path, "--output", output, "--device", "cpu")
    assert said.status == 0, said.err
    with output.open() as file:
        predicted = [float(row["prediction"]) for row in csv.DictReader(file)]
    said = bigmodel("eval", tmp_path / "run", "--data", path, "--json", "--device", "cpu")
    assert said.status == 0, said.err
    mae = sum(abs(a - b) for a, b in zip(predicted, SECONDS, strict=True)) / ROWS
    assert json.loads(said.out)["figures"]["data/mae"] == pytest.approx(mae, rel=1e-4)


def test_an_odd_duration_leaves_its_row_out(tmp_path: Path) -> None:
    took = [as_iso(some) for some in SECONDS]
    took[5] = "late"
    told = trained(tmp_path / "run", save(table_of(took), tmp_path / "a.csv")).dataset.header_rows
    lines = "\n".join(line for _, line in told)
    assert (
        f"target 'took': 1 of {ROWS} cells is not a duration and its row is left out, the first in"
        in lines
    )


def test_durations_are_classes_where_the_user_says_so(tmp_path: Path) -> None:
    took = [as_iso(60 * (i % 2 + 1)) for i in range(ROWS)]
    path = save(table_of(took), tmp_path / "a.csv")
    told = dict(trained(tmp_path / "run", path, task="classes").dataset.header_rows)
    assert told["Target"].startswith("took, 2 classes: PT0H1M")


def test_mostly_durations_are_values_where_the_user_says_so(tmp_path: Path) -> None:
    took = [as_iso(some) if i % 4 else "late" for i, some in enumerate(SECONDS)]
    path = save(table_of(took), tmp_path / "a.csv")
    told = dict(trained(tmp_path / "run", path, task="values").dataset.header_rows)
    assert told["Target"].startswith("took, a real value in seconds")
