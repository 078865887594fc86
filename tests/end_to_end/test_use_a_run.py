"""From training to predictions, as a user goes: with the two commands alone."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_diabetes, load_digits

from tests.cli.commands.cli import Bigmodel, caller
from tests.end_to_end.conftest import Command

QUICK = ("device=cpu", "trainer.tensorboard=false")


@pytest.fixture
def bigmodel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bigmodel:
    return caller(monkeypatch, capsys)


def column(text: str, name: str) -> list[str]:
    return [row[name] for row in csv.DictReader(io.StringIO(text))]


@pytest.mark.parametrize("model", ["fnn", "cnn"])
def test_digits_from_training_to_another_program(
    command: Command, bigmodel: Bigmodel, tmp_path: Path, model: str
) -> None:
    run = command(f"model={model}", "data=digits", "trainer.epochs=2", *QUICK)
    assert run.folder is not None
    moved = Path(shutil.move(run.folder, tmp_path / "moved"))

    figures = json.loads(bigmodel("eval", moved, "--json", "--device", "cpu").out)["figures"]
    best = json.loads((moved / "summary.json").read_text())["best"]
    assert figures == {key: pytest.approx(best[key]) for key in figures}

    digits = load_digits()
    images = (digits.images[:100, None] / 16).astype(np.float32)
    np.savez(tmp_path / "new.npz", inputs=images, targets=digits.target[:100])
    said = bigmodel("predict", moved, "--input", tmp_path / "new.npz", "--device", "cpu")
    labels = column(said.out, "prediction")
    right = np.mean(np.array(labels) == digits.target[:100].astype(str))
    judged = bigmodel("eval", moved, "--data", tmp_path / "new.npz", "--json", "--device", "cpu")
    assert json.loads(judged.out)["figures"]["data/accuracy"] == pytest.approx(right)
    assert right > 0.5

    assert bigmodel("export", moved, "--format", "onnx").status == 0
    session = onnxruntime.InferenceSession(moved / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.run(["label"], {"image": images})[0].tolist() == labels


def test_values_come_in_their_own_unit(command: Command, bigmodel: Bigmodel, tmp_path: Path) -> None:
    run = command("data=diabetes", "trainer.epochs=3", *QUICK)
    diabetes = load_diabetes(scaled=False)
    np.savez(tmp_path / "new.npz", inputs=diabetes.data)
    said = bigmodel("predict", run.folder, "--input", tmp_path / "new.npz", "--device", "cpu")
    values = np.array(column(said.out, "prediction"), float)
    assert np.abs(values - diabetes.target).mean() < diabetes.target.std()
    assert 100 < values.mean() < 200


def test_the_jobs_of_a_sweep(command: Command, bigmodel: Bigmodel, tmp_path: Path) -> None:
    command(
        "-m", "data=iris", "optimizer.lr=0.1,0.01", "trainer.epochs=1", "hydra.sweep.dir=sweep", *QUICK
    )
    said = bigmodel("eval", tmp_path / "sweep")
    assert said.status == 1
    assert f"Choose one: {tmp_path}/sweep/0, {tmp_path}/sweep/1." in said.err
    assert bigmodel("eval", tmp_path / "sweep" / "1", "--device", "cpu").status == 0


def test_a_table_and_its_test_part(command: Command, bigmodel: Bigmodel, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [
        (city, x, x * 2 + len(city)) for x in draw.normal(size=60) for city in ("Oslo", "Rome", "Paris")
    ]
    (tmp_path / "t.csv").write_text(
        "\n".join(["city,area,price", *(f"{city},{x:.3f},{y:.3f}" for city, x, y in rows), ""])
    )
    run = command(
        *("data=table", "data.path=t.csv", "data.target=price", "data.test_fraction=0.2"),
        *("trainer.epochs=3", *QUICK),
    )
    figures = json.loads(bigmodel("eval", run.folder, "--json", "--device", "cpu").out)["figures"]
    assert figures == {key: pytest.approx(value) for key, value in run.summary()["test"].items()}
    (tmp_path / "t.csv").unlink()
    (tmp_path / "new.csv").write_text("area,city\n0.5,Oslo\n1.5,Atlantis\n")
    said = bigmodel(
        "predict", run.folder, "--input", "new.csv", "--output", "o.jsonl", "--device", "cpu"
    )
    assert said.status == 0, said.err
    told = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["city"] for row in told] == ["Oslo", "Atlantis"]
    assert all(isinstance(row["prediction"], float) for row in told)
    assert "Unseen categories: city in 1 row\n" in said.err
