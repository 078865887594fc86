"""A table with pictures and texts, from training to predictions, with the two commands alone."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.cli.commands.cli import Bigmodel, caller
from tests.data.multimodal.adverts import adverts, read_rows, write
from tests.end_to_end.conftest import Command
from tests.end_to_end.test_resume import StoppedError, final_state, stop_after

TABLE = ("data=table", "data.path=adverts.csv", "data.target=price", "data.cache=null")
MEDIA = ("data.columns.photo=image", "data.columns.text=text")
SMALL = ("model=fusion", "model.dim=16", "data.batch_size=10", "device=cpu", "trainer.tensorboard=false")
TRAINING = (*TABLE, *MEDIA, *SMALL, "trainer.epochs=2", "trainer.checkpoint.every_steps=1")


@pytest.fixture
def bigmodel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bigmodel:
    return caller(monkeypatch, capsys)


def test_a_resumed_run_equals_one_that_never_stopped(command: Command, tmp_path: Path) -> None:
    adverts(tmp_path)
    whole = command(*TRAINING)
    assert whole.status == 0, whole.err
    expected, expected_facts = final_state(whole)
    for step in (2, 5):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, step)
            with pytest.raises(StoppedError):
                pytest.fail(f"It was not stopped: {command(*TRAINING)}")
        runs = sorted(Path("outputs").rglob("summary.json"), key=lambda path: path.stat().st_mtime)
        resumed = command(f"resume={runs[-1].parent}")
        assert resumed.status == 0, resumed.err
        groups, facts = final_state(resumed)
        assert facts == expected_facts
        for name, tensors in expected.items():
            assert groups[name].keys() == tensors.keys()
            assert all(torch.equal(groups[name][key], value) for key, value in tensors.items())


def test_a_changed_picture_is_noticed_on_resume(command: Command, tmp_path: Path) -> None:
    adverts(tmp_path)
    first = command(*TRAINING)
    shutil.copy("files/1.png", "files/0.png")
    resumed = command(f"resume={first.folder}", "trainer.epochs=3")
    assert resumed.status == 1
    assert "the data differs from what this run was trained on" in resumed.err


def test_from_training_to_predictions(command: Command, bigmodel: Bigmodel, tmp_path: Path) -> None:
    table = adverts(tmp_path, 96, sounds=True)
    run = command(
        *TRAINING[:-2], "data.columns.sound=audio", "data.sample_rate=8000", "trainer.epochs=12"
    )
    assert run.status == 0, run.err
    assert run.folder is not None
    assert run.summary()["best"]["val/r2"] > 0.7  # no column alone explains more than 0.8 of the price

    figures = json.loads(bigmodel("eval", run.folder, "--json", "--device", "cpu").out)["figures"]
    best = run.summary()["best"]
    assert figures == {key: pytest.approx(best[key], rel=1e-4) for key in figures}

    rows = read_rows(table)
    new = tmp_path / "elsewhere"
    new.mkdir()
    shutil.copytree(tmp_path / "files", new / "files")
    write(
        new / "new.csv", ["text", "sound", "photo", "age"], [[r[1], r[4], r[0], r[2]] for r in rows[:8]]
    )
    said = bigmodel("predict", run.folder, "--input", new / "new.csv", "--device", "cpu")
    predicted = [float(row["prediction"]) for row in csv.DictReader(io.StringIO(said.out))]
    assert len(predicted) == 8
    bright = sum(predicted[row] for row in (1, 3)) / 2
    assert bright > sum(predicted[row] for row in (0, 2)) / 2 + 40

    said = bigmodel("export", run.folder)
    assert (said.status, "several kinds of data at once" in said.err) == (1, True)
    said = bigmodel("export", run.folder, "--format", "huggingface")
    assert said.status == 1
    assert "and fusion on table is none. The format safetensors holds its weights." in said.err
    said = bigmodel("explain", run.folder)
    assert (said.status, "No method explains such a run" in said.err) == (1, True)
    page = tmp_path / "page.html"
    assert bigmodel("report", run.folder, "--output", page).status == 0
    assert "(file)" in page.read_text()


def test_another_model_is_refused_in_words(command: Command, tmp_path: Path) -> None:
    adverts(tmp_path)
    said = command(*TABLE, *MEDIA, "model=cnn", "device=cpu")
    assert said.status == 1
    assert "model=cnn cannot read data=table, which holds features (1 feature), photo" in said.err
    assert "use model=fusion" in said.err


def test_a_picture_that_is_not_there_is_one_message(command: Command, tmp_path: Path) -> None:
    table = adverts(tmp_path)
    (tmp_path / "files/4.png").unlink()
    said = command(*TRAINING)
    assert said.status == 1
    assert said.err.count("\n") == 1
    assert (
        f"{table.name}: column 'photo', row 4 (counted from 0): files/4.png cannot be read" in said.err
    )
    assert said.folder is None


def test_an_encoder_starts_from_given_weights(
    command: Command, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    from tests.hugging_face import TEXTS, write_folder  # needs transformers

    table = adverts(tmp_path)
    rows = [
        [r[0], TEXTS[n % len(TEXTS)] if r[1] else "", *r[2:]] for n, r in enumerate(read_rows(table))
    ]
    write(table, ["photo", "text", "age", "price"], rows)
    write_folder(tmp_path / "folder", "bert")
    start = ("model.encoders.text.pretrained=folder", "data.text_length=24", "scheduler=constant")
    words = (*TRAINING, *start)
    whole = command(*words)
    assert whole.status == 0, whole.err
    assert "Pretrained: text: " in whole.out
    half = command(*words, "trainer.epochs=1")
    shutil.rmtree(tmp_path / "folder")
    resumed = command(f"resume={half.folder}", "trainer.epochs=2")
    assert resumed.status == 0, resumed.err
    groups, expected = final_state(resumed)[0], final_state(whole)[0]
    assert all(torch.equal(groups["model"][key], value) for key, value in expected["model"].items())
    assert bigmodel("predict", whole.folder, "--input", table, "--device", "cpu").status == 0
    missing = command(*words)
    assert missing.err == (
        "bigmodel-train: model.encoders.text.pretrained=folder: there is no such file or folder.\n"
    )


def test_several_targets_from_training_to_predictions(
    command: Command, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    table = adverts(tmp_path, 96)
    rows = [[*row, "bright" if number % 2 else "dark"] for number, row in enumerate(read_rows(table))]
    write(table, ["photo", "text", "age", "price", "kind"], rows)
    words = (
        "data.target=[price,kind]",
        "loss.weights.price=2",
        "trainer.epochs=12",
        "scheduler=constant",
    )
    run = command(*TRAINING[:-2], *words)
    assert run.status == 0, run.err
    assert run.folder is not None
    best = run.summary()["best"]
    assert best["val/kind/accuracy"] > 0.8
    assert best["val/price/r2"] > 0.5
    assert "Loss: 2 × mse of price + 1 × cross_entropy of kind" in run.out

    half = command(*TRAINING[:-2], *words, "trainer.epochs=5")
    resumed = command(f"resume={half.folder}", "trainer.epochs=12")
    assert resumed.status == 0, resumed.err
    groups, expected = final_state(resumed)[0], final_state(run)[0]
    assert all(torch.equal(groups["model"][key], value) for key, value in expected["model"].items())

    figures = json.loads(bigmodel("eval", run.folder, "--json", "--device", "cpu").out)["figures"]
    assert figures == {key: pytest.approx(best[key], rel=1e-4) for key in figures}
    new = tmp_path / "new.csv"
    write(new, ["photo", "text", "age"], [row[:3] for row in rows[:8]])
    said = bigmodel("predict", run.folder, "--input", new, "--device", "cpu")
    predicted = list(csv.DictReader(io.StringIO(said.out)))
    assert list(predicted[0]) == ["photo", "text", "age", "price", "kind", "kind probability"]
    assert {row["kind"] for row in predicted} == {"bright", "dark"}
    for verb, reason in (("export", "several targets at once"), ("explain", "No method explains")):
        said = bigmodel(verb, run.folder)
        assert (said.status, reason in said.err) == (1, True)
    said = bigmodel("predict", run.folder, "--input", new, "--interval", "0.9")
    assert (said.status, "predicts several targets" in said.err) == (1, True)
    assert bigmodel("report", run.folder, "--output", tmp_path / "page.html").status == 0


def test_other_models_learn_several_targets_too(command: Command, tmp_path: Path) -> None:
    table = adverts(tmp_path, 40)
    rows = [[*row, "bright" if number % 2 else "dark"] for number, row in enumerate(read_rows(table))]
    write(table, ["photo", "text", "age", "price", "kind"], rows)
    plain = ("data.ignore=[photo,text]", "data.target=[kind,price]", "model=fnn", "trainer.epochs=1")
    run = command(
        *TABLE, *plain, "device=cpu", "trainer.tensorboard=false", "data.folds=2", "data.val_fold=0"
    )
    assert run.status == 0, run.err
    assert run.folder is not None
    kept = list(csv.DictReader((run.folder / "out_of_fold.csv").read_text().splitlines()))
    assert list(kept[0]) == [
        *("row", "fold", "target kind", "target price", "kind", "kind probability", "price"),
    ]
