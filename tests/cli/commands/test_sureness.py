"""`bigmodel predict --calibrated`, `--interval` and `--set`: what they add, and where it comes from."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pa_parquet
import pytest
import torch

from bigmodel.cli.commands.loaded_run import load_run
from bigmodel.spec import Values
from bigmodel.training.calibration import NAME, read_calibration
from bigmodel.training.loop import fit
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run
from tests.cli.commands.test_undefined import FILES, TEXTS
from tests.small_runs import built

Predict = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def predict(bigmodel: Bigmodel, tmp_path: Path) -> Predict:
    def of(folder: Path, *options: object, rows: int = 6) -> list[dict[str, Any]]:
        new, output = tmp_path / "new.npz", tmp_path / "out.jsonl"
        draw = np.random.default_rng(0)
        np.savez(new, inputs=draw.normal(size=(rows, 5)).astype(np.float32))
        words = ("--input", new, "--output", output, "--device", "cpu", "--force", *options)
        result = bigmodel("predict", folder, *words)
        assert result.status == 0, result.err
        return [json.loads(line) for line in output.read_text().splitlines()]

    return of


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def stored(folder: Path) -> Any:
    loaded = load_run(str(folder), "best", "cpu", [], print)
    found = read_calibration(folder, loaded.step, loaded.preprocessing.spec.target)
    assert found is not None
    return found


def test_probabilities_are_those_of_scaled_outputs(made: Run, predict: Predict) -> None:
    plain = predict(made("classes"), "--probabilities")
    calibrated = predict(made("classes"), "--probabilities", "--calibrated")
    (temperature,) = stored(made("classes")).temperatures
    names = [name for name in plain[0] if "of" in name]
    before, after = (
        torch.tensor([[row[n] for n in names] for row in rows]) for rows in (plain, calibrated)
    )
    torch.testing.assert_close(after, (before.log() / temperature).softmax(1), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(before, after)
    for one, other in zip(plain, calibrated, strict=True):
        assert one["prediction"] == other["prediction"]
        assert other["probability"] == max(other[name] for name in names)


def test_each_label_has_its_temperature(made: Run, predict: Predict) -> None:
    plain = predict(made("flags"), "--probabilities")
    calibrated = predict(made("flags"), "--calibrated")  # shown without being asked for
    assert list(plain[0]) == list(calibrated[0])
    names = [name.removeprefix("probability of ") for name in plain[0] if "of" in name]
    for name, temperature in zip(names, stored(made("flags")).temperatures, strict=True):
        p = torch.tensor(
            [[row[f"probability of {name}"] for row in rows] for rows in (plain, calibrated)]
        )
        torch.testing.assert_close(p[1], (p[0].logit() / temperature).sigmoid(), rtol=1e-4, atol=1e-6)
        assert [row[name] for row in plain] == [row[name] for row in calibrated]


def test_a_threshold_decides_as_before(tmp_path: Path, predict: Predict) -> None:
    settings = {"data.outputs": 2, "data.samples": 200, "data.noise": 0.5, "threshold": "f1"}
    fit(built(tmp_path / "run", settings)[0])
    plain = predict(tmp_path / "run", rows=200)
    sure = predict(tmp_path / "run", "--calibrated", "--set", 0.8, rows=200)
    assert [row["prediction"] for row in plain] == [row["prediction"] for row in sure]
    assert min(row["probability"] for row in sure) < 0.5, "none was decided by the threshold"
    assert all(row["prediction"] in row["set"] for row in sure)


def test_an_interval_lies_around_the_prediction(made: Run, predict: Predict) -> None:
    plain = predict(made("values"))
    sure, surer = (predict(made("values"), "--interval", level) for level in (0.5, 0.9))
    assert list(sure[0]) == ["row", "prediction", "lower", "upper"]
    for row, one, other in zip(plain, sure, surer, strict=True):
        assert one["prediction"] == row["prediction"]
        assert other["lower"] < one["lower"] < row["prediction"] < one["upper"] < other["upper"]


def test_several_values_have_their_own(tmp_path: Path, predict: Predict) -> None:
    fit(built(tmp_path / "run", {"data.target": "values", "data.outputs": 2})[0])
    rows = predict(tmp_path / "run", "--interval", 0.9)
    names = [name for name in rows[0] if name != "row"]
    first, second = names[0], names[3]
    assert names == [
        first,
        f"{first} lower",
        f"{first} upper",
        second,
        f"{second} lower",
        f"{second} upper",
    ]


def test_a_set_holds_the_likeliest_first(made: Run, predict: Predict) -> None:
    rows = predict(made("classes"), "--probabilities", "--set", 0.9, rows=50)
    sizes = set()
    for row in rows:
        shares = [row[f"probability of {name}"] for name in row["set"]]
        assert row["set"][0] == row["prediction"]
        assert shares == sorted(shares, reverse=True)
        sizes.add(len(row["set"]))
    assert len(sizes) > 1


def test_tables_hold_sets_and_intervals(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    new = tmp_path / "new.npz"
    np.savez(new, inputs=np.zeros((2, 5), np.float32))
    for suffix in ("csv", "parquet"):
        for name, option in (("classes", "--set"), ("values", "--interval")):
            output = tmp_path / f"{name}.{suffix}"
            words = ("--input", new, option, 0.9, "--output", output, "--device", "cpu")
            assert bigmodel("predict", made(name), *words).status == 0
    with (tmp_path / "classes.csv").open(newline="") as file:
        written = [json.loads(row["set"]) for row in csv.DictReader(file)]
    assert written == pa_parquet.read_table(tmp_path / "classes.parquet")["set"].to_pylist()
    with (tmp_path / "values.csv").open(newline="") as file:
        ends = [float(row["upper"]) for row in csv.DictReader(file)]
    assert ends == pa_parquet.read_table(tmp_path / "values.parquet")["upper"].to_pylist()


def test_a_run_without_its_data_needs_none(made: Run, predict: Predict, tmp_path: Path) -> None:
    folder = copied(made("table").parent, tmp_path / "there") / "run"
    (folder.parent / "t.csv").unlink()
    before = predict_table(folder, tmp_path, predict)
    assert {"lower", "upper"} <= set(before)


def predict_table(folder: Path, tmp_path: Path, predict: Predict) -> dict[str, Any]:
    new = tmp_path / "rows.csv"
    new.write_text("city,area,built\nOslo,3.5,2024-03-11\n")
    return predict(folder, "--interval", 0.5, "--input", new)[0]


@pytest.mark.parametrize(
    ("name", "option"), [("values", "--interval"), ("classes", "--set"), ("flags", "--calibrated")]
)
def test_an_older_run_is_calibrated_on_its_data(
    made: Run, predict: Predict, bigmodel: Bigmodel, tmp_path: Path, name: str, option: str
) -> None:
    words = (option, 0.9) if option != "--calibrated" else (option,)
    expected = predict(made(name), *words)
    older = copied(made(name), tmp_path / "older")
    (older / NAME).unlink()
    found = predict(older, *words)
    for one, other in zip(expected, found, strict=True):
        for key in one:
            same = one[key] if isinstance(one[key], str | list) else pytest.approx(one[key], rel=1e-4)
            assert other[key] == same
    words = ("--input", tmp_path / "new.npz", *words, "--device", "cpu")
    assert "Calibrating on 16 validation samples" in bigmodel("predict", older, *words).err


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "classes",
            ("--interval", 0.9),
            "predicts classes, which have no intervals. For classes: --set.",
        ),
        ("values", ("--set", 0.9), "which have no sets. For values: --interval."),
        ("values", ("--calibrated",), "which have no probabilities. For values: --interval."),
        ("flags", ("--set", 0.9), "which have no sets. For labels: --calibrated."),
        ("flags", ("--interval", 0.9), "which have no intervals. For labels: --calibrated."),
        (
            "values",
            ("--interval", 0.99),
            "at least 99 validation samples, and the run has 16. Ask for at most 0.94,",
        ),
        ("values", ("--interval", 90), "--interval: 90: must be a share between 0 and 1, such as 0.9."),
        ("values", ("--interval", 1), "--interval: 1: must be a share between 0 and 1"),
        ("values", ("--interval", "much"), "--interval: invalid share value: 'much'"),
        ("text", ("--set", 0.9), "--set: "),
    ],
)
def test_what_cannot_be_told_is_refused(
    made: Run, bigmodel: Bigmodel, tmp_path: Path, name: str, options: tuple[object, ...], said: str
) -> None:
    np.savez(tmp_path / "new.npz", inputs=np.zeros((2, 5), np.float32))
    words = ("--input", tmp_path / "new.npz", "--device", "cpu")
    result = bigmodel("predict", made(name), *words, *options)
    assert result.status == 1
    assert said in result.err
    assert result.err.count("\n") == 1


def test_without_validation_there_is_nothing_to_learn_from(bigmodel: Bigmodel, tmp_path: Path) -> None:
    fit(built(tmp_path / "run", {"data.target": "values", "data.validation": False})[0])
    np.savez(tmp_path / "new.npz", inputs=np.zeros((2, 5), np.float32))
    result = bigmodel("predict", tmp_path / "run", "--input", tmp_path / "new.npz", "--interval", 0.9)
    assert result.status == 1
    assert "--interval: it is learnt from samples that were not trained on" in result.err
    assert "data.validation=true" in result.err


def test_data_that_is_gone_or_other_is_told(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    settings = {"data": {"name": "table", "path": str(tmp_path / "t.csv"), "target": "price"}}
    shutil.copy(made("table").parent / "t.csv", tmp_path / "t.csv")
    fit(built(tmp_path / "run", settings)[0])
    (tmp_path / "run" / NAME).unlink()
    (tmp_path / "new.csv").write_text("city,area,built\nOslo,3.5,2024-03-11\n")
    words = ("--input", tmp_path / "new.csv", "--interval", 0.5)
    assert bigmodel("predict", tmp_path / "run", *words).status == 0
    lines = (tmp_path / "t.csv").read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    changed = bigmodel("predict", tmp_path / "run", *words)
    assert changed.status == 1
    assert "the data is not what the run was trained on" in changed.err
    (tmp_path / "t.csv").unlink()
    gone = bigmodel("predict", tmp_path / "run", *words)
    assert gone.status == 1
    assert "has no calibration for its weights of step" in gone.err
    assert "t.csv" in gone.err


@pytest.mark.parametrize("name", [name for name in FILES if name not in TEXTS])
def test_every_kind_of_data_has_it(made: Run, bigmodel: Bigmodel, tmp_path: Path, name: str) -> None:
    folder, output = made(name), tmp_path / "out.jsonl"
    loaded = load_run(str(folder), "best", "cpu", [], print)
    values = isinstance(loaded.preprocessing.spec.target, Values)
    options = ("--interval", 0.5) if values else ("--set", 0.5, "--calibrated", "--probabilities")
    words = ("--input", folder.parent / FILES[name], "--output", output, "--device", "cpu")
    result = bigmodel("predict", folder, *words, *options)
    assert result.status == 0, result.err
    for row in map(json.loads, output.read_text().splitlines()):
        if values:
            assert row["lower"] < row["prediction"] < row["upper"]
        else:
            assert row["prediction"] in row["set"]
            shares = [share for key, share in row.items() if key.startswith("probability of ")]
            assert row["probability"] == max(shares)
