"""Figures of a run that exists: those that training gave, wherever they are asked for."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bigmodel.cli.commands.eval import evaluate_data, new_data, own_data
from bigmodel.reporting.summary import read_summary
from bigmodel.training.loop import fit
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import SETTINGS, Run
from tests.cli.commands.test_loaded_run import loaded
from tests.small_runs import built


@pytest.mark.parametrize("name", SETTINGS)
def test_the_figures_are_those_of_training(made: Run, name: str) -> None:
    run = loaded(made(name))
    data = own_data(run)
    figures = evaluate_data(run, data).metrics
    summary = read_summary(made(name))
    assert summary is not None
    expected = summary.test if data.part == "test" else summary.best
    assert {f"{data.part}/{key}": value for key, value in figures.items()} == {
        key: pytest.approx(value, rel=1e-6)
        for key, value in expected.items()
        if key.startswith(f"{data.part}/")
    }


def test_the_batch_size_changes_nothing(made: Run) -> None:
    run = loaded(made("classes"))
    few, whole = (evaluate_data(run, own_data(run), size).metrics for size in (5, None))
    assert few == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("name", ["table", "reviews", "text", "pairs"])
def test_new_data_gives_the_same_figures_as_the_same_samples_did(made: Run, name: str) -> None:
    """All of the file, training set too, is data: as good as it is in parts."""
    run, folder = loaded(made(name)), made(name).parent
    path = {
        "table": folder / "t.csv",
        "reviews": folder / "reviews.csv",
        "text": folder / "verses.txt",
        "pairs": Path(f"{folder / 'de.txt'},{folder / 'en.txt'}"),
    }[name]
    given = new_data(run, Namespace(data=str(path), max_bad=0, encoding=None))
    figures, own = (evaluate_data(run, data).metrics for data in (given, own_data(run)))
    assert figures.keys() == own.keys()
    assert figures["loss"] == pytest.approx(own["loss"], rel=0.5)


def test_one_line_of_json(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    run = made("values")
    inputs, targets = np.random.default_rng(0).normal(size=(9, 5)), np.full((9, 1), 2.0)
    np.savez(tmp_path / "new.npz", inputs=inputs, targets=targets)
    said = bigmodel("eval", run, "--data", tmp_path / "new.npz", "--json", "--device", "cpu")
    assert said.status == 0, said.err
    told = json.loads(said.out)
    assert said.out.count("\n") == 1
    assert (told["part"], told["samples"], told["path"]) == ("data", 9, str(tmp_path / "new.npz"))
    assert told["figures"].keys() == {"data/loss", "data/mae", "data/rmse", "data/r2"}


def test_a_table_to_look_at(made: Run, bigmodel: Bigmodel) -> None:
    said = bigmodel("eval", made("classes"), "--device", "cpu")
    assert said.status == 0
    assert "fnn on synthetic, weights of step" in said.out
    assert "the validation set of synthetic, 16 samples" in said.out
    assert "val/accuracy" in said.out


def test_metrics_of_choice(made: Run, bigmodel: Bigmodel) -> None:
    """Added to a run that was made without them; of each class where there are several."""
    said = bigmodel("eval", made("classes"), "--metrics", "[auc, recall]", "--json", "--device", "cpu")
    assert said.status == 0, said.err
    told = json.loads(said.out)
    assert {"val/auc", "val/macro_recall", "val/accuracy"} <= told["figures"].keys()
    assert told["by_class"].keys() == {"val/auc", "val/recall"}
    assert len(told["by_class"]["val/recall"]) == 3
    table = bigmodel("eval", made("classes"), "--metrics", "auc", "--metrics", "recall").out
    assert table.count("val/recall") == 1, "the head of a second table"
    wrong = bigmodel("eval", made("classes"), "--metrics", "auk")
    assert wrong.status == 1
    assert "--metrics: there is no metric 'auk'. Did you mean 'auc'?" in wrong.err
    unfit = bigmodel("eval", made("values"), "--metrics", "auc")
    assert "needs classes or yes/no labels, and the target is 1 real value" in unfit.err


def test_changed_data_is_told(made: Run, bigmodel: Bigmodel) -> None:
    run = made("reviews")
    path = run.parent / "reviews.csv"
    before = path.read_text()
    try:
        path.write_text(before.replace("good, good", "good, fine"))
        changed = bigmodel("eval", run, "--device", "cpu")
        path.unlink()
        gone = bigmodel("eval", run, "--device", "cpu")
    finally:
        path.write_text(before)
    assert "Warning: the data is not what the run was trained on" in changed.err or (
        "the data is of another kind now" in changed.err
    )
    assert gone.status == 1
    assert "there is no such file or folder" in gone.err
    assert gone.err.endswith("--data evaluates on another file or folder.\n")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("missing.npz", "--data missing.npz"),
        ("narrow.npz", "has shape (4, 3), but the model reads"),
    ],
)
def test_data_that_does_not_fit_is_refused(
    made: Run,
    bigmodel: Bigmodel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: str,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "narrow.npz", inputs=np.zeros((4, 3)), targets=np.zeros(4))
    said = bigmodel("eval", made("classes"), "--data", settings, "--device", "cpu")
    assert said.status == 1
    assert told in said.err
    assert "Traceback" not in said.err


def test_what_new_data_lacks_is_said_in_the_words_of_this_command(
    made: Run, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("city,area,built\nRome,1,2024-01-11\n")
    said = bigmodel("eval", made("table"), "--data", tmp_path / "t.csv", "--device", "cpu")
    assert f"{tmp_path}/t.csv: there is no column 'price', which holds the answers." in said.err
    (tmp_path / "r.csv").write_text("text,lable\ngood,pos\n")
    said = bigmodel("eval", made("reviews"), "--data", tmp_path / "r.csv", "--device", "cpu")
    assert f"{tmp_path}/r.csv: there is no column 'label'. Did you mean 'lable'?" in said.err
    shutil.copytree(made("photos").parent / "photos" / "low", tmp_path / "loose")
    said = bigmodel("eval", made("photos"), "--data", tmp_path / "loose", "--device", "cpu")
    assert "are in no class folder" in said.err
    assert "data." not in said.err


@pytest.mark.parametrize("price", ["", "NA", "-"])
def test_of_a_file_without_a_single_answer_that_is_what_is_said(
    made: Run, bigmodel: Bigmodel, tmp_path: Path, price: str
) -> None:
    (tmp_path / "t.csv").write_text("city,area,built,price\n" + f"Rome,1,2024-01-11,{price}\n" * 3)
    said = bigmodel("eval", made("table"), "--data", tmp_path / "t.csv", "--device", "cpu")
    assert said.status == 1
    assert f"{tmp_path}/t.csv: column 'price', the target, has no values in its 3 rows" in said.err
    assert ("taken for missing" in said.err) == (price != "")
    assert price == "" or f"(3 {price!r} taken for missing)" in said.err
    assert "batch_size" not in said.err


@pytest.mark.parametrize("verb", ["eval", "predict"])
def test_of_arrays_without_a_sample_that_is_what_is_said(
    made: Run, bigmodel: Bigmodel, tmp_path: Path, verb: str
) -> None:
    np.savez(tmp_path / "none.npz", inputs=np.zeros((0, 5)), targets=np.zeros((0, 1)))
    option = {"eval": "--data", "predict": "--input"}[verb]
    said = bigmodel(verb, made("values"), option, tmp_path / "none.npz", "--device", "cpu")
    assert said.status == 1
    assert f"{tmp_path}/none.npz" in said.err
    assert "batch_size" not in said.err


def test_of_one_file_that_cannot_be_read_none_can_be_left_out(
    made: Run, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    (tmp_path / "0.png").write_bytes(b"no picture")
    said = bigmodel("predict", made("photos"), "--input", tmp_path / "0.png", "--device", "cpu")
    assert "1 of 1 pictures cannot be read" in said.err
    assert "max-bad" not in said.err


def test_references_that_are_too_long_are_left_out_by_an_option_that_there_is(
    made: Run, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    (tmp_path / "de.txt").write_text("ein Hund\nein Hund\n")
    (tmp_path / "en.txt").write_text(f"one dog\n{'one dog ' * 50}\n")
    words = ["eval", made("pairs"), "--data", f"{tmp_path}/de.txt,{tmp_path}/en.txt", "--device", "cpu"]
    said = bigmodel(*words)
    assert "or set --max-bad 1 to skip them" in said.err
    assert bigmodel(*words, "--max-bad", 1).status == 0


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "reviews",
            'text,label\n"good, good, good, good, good, fine",pos\n"bad",neg\n',
            "1 text, to 12 tokens",
        ),
        ("pairs", "Hund " * 40 + "\nein\n", "1 source, to 24 tokens"),
    ],
)
def test_what_is_cut_is_told_as_in_training(
    made: Run, bigmodel: Bigmodel, tmp_path: Path, name: str, text: str, told: str
) -> None:
    new = tmp_path / {"reviews": "new.csv", "pairs": "new.de"}[name]
    new.write_text(text)
    (tmp_path / "new.en").write_text("dog\none\n")
    predicted = bigmodel("predict", made(name), "--input", new, "--device", "cpu")
    assert predicted.status == 0, predicted.err
    data = new if name == "reviews" else f"{new},{tmp_path / 'new.en'}"
    data = bigmodel("eval", made(name), "--data", data, "--device", "cpu")
    assert data.status == 0, data.err
    for said in (predicted, data):
        assert f"Cut: {told}" in said.err.splitlines()


def test_recordings_that_are_cut_and_files_that_are_none_are_told(
    made: Run, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    for seconds, label in ((0.1, "low"), (3.0, "high")):
        (tmp_path / label).mkdir()
        wave = np.sin(np.arange(int(8000 * seconds)) / 5)
        soundfile.write(tmp_path / label / "a.wav", wave, 8000)
        (tmp_path / label / "notes.md").write_text("none")
    heard = loaded(made("sounds")).preprocessing.reader.settings  # type: ignore[union-attr]
    told = f"Cut: 1 recording, to {heard.samples / heard.rate:.2f} s"
    for args in (("predict", made("sounds"), "--input"), ("eval", made("sounds"), "--data")):
        said = bigmodel(*args, tmp_path, "--device", "cpu")
        assert said.status == 0, said.err
        assert told in said.err.splitlines()
        assert "Ignored: 2 other files: 2 .md" in said.err.splitlines()


def test_what_is_limited_and_weighted_is_told(bigmodel: Bigmodel, tmp_path: Path) -> None:
    settings = {
        "trainer.limit": {"val": 1},
        "loss": {"name": "cross_entropy", "class_weights": [1.0, 2.0, 0.5]},
    }
    run, told = built(tmp_path / "run", settings)
    (tmp_path / "run").mkdir()
    fit(run)
    rows = dict(run.info.rows)
    assert rows["Limited"] == "val limited to 12 of 16 (trainer.limit.val)"
    assert rows["Loss"] == "cross_entropy (class_weights=[1.0, 2.0, 0.5])"
    assert told.summary is not None
    assert told.summary.loss == rows["Loss"]
    said = bigmodel("eval", tmp_path / "run", "--device", "cpu")
    assert said.status == 0, said.err
    assert f"Limited: {rows['Limited']}" in said.err.splitlines()
    assert f"Loss    {rows['Loss']}" in said.out.splitlines()
    plain = json.loads(bigmodel("eval", tmp_path / "run", "--json", "--device", "cpu").out)
    assert plain["loss"] == rows["Loss"]
