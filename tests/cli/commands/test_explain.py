"""`bigmodel explain`: tables, pictures and recordings, to the terminal and into files."""

import csv
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bigmodel.cli.commands.explanations.output import write_result
from bigmodel.cli.commands.explanations.subject import ExplainedPart
from bigmodel.explain.methods import _METHODS
from bigmodel.explain.names import METHODS
from bigmodel.explain.results import Dependence
from bigmodel.explain.subject import Subject
from bigmodel.spec import Values
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run

CPU = ("--device", "cpu")


def test_the_methods_that_help_lists_are_those_that_there_are(bigmodel: Bigmodel) -> None:
    assert list(METHODS) == list(_METHODS)
    said = " ".join(bigmodel("explain", "--help").out.split())
    assert all(f"{name}: " in said for name in METHODS)


def test_without_an_output_it_prints_what_the_model_depends_on(bigmodel: Bigmodel, made: Run) -> None:
    said = bigmodel("explain", made("table"), "--repeats", 2, *CPU)
    assert said.status == 0, said.err
    lines = said.out.splitlines()
    assert lines[3].split()[:2] == ["Figure", "rmse"]
    assert lines[4].split() == ["column", "rmse", "is", "worse", "by", "from", "to"]
    assert {line.split()[0] for line in lines[5:]} == {"city", "area", "built"}


def test_attributions_of_rows_are_a_table(bigmodel: Bigmodel, made: Run, tmp_path: Path) -> None:
    output = tmp_path / "why.csv"
    said = bigmodel(
        "explain", made("table"), "--data", made("table").parent / "t.csv", "--output", output, *CPU
    )
    assert said.status == 0, said.err
    assert "Compared with the mean of each number and the most frequent of each category" in said.err
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert len(rows) == 120
    assert list(rows[0]) == ["row", "explained", "score", "baseline", "city", "area", "built"]
    for row in rows:
        total = sum(float(row[name]) for name in ("city", "area", "built"))
        difference = float(row["score"]) - float(row["baseline"])
        assert total == pytest.approx(difference, rel=2e-3, abs=1e-4)
    assert said.err.rstrip().endswith(str(output))


@pytest.mark.parametrize(
    ("name", "words", "shown"),
    [
        ("sequences", (), 5),
        ("photos", ("--method", "occlusion", "--samples", 2), 2),
        ("table", (), 1),
        ("table", ("--method", "partial_dependence"), 3),
        ("reviews", ("--samples", 3), 1),
    ],
)
def test_pictures_are_shown_in_tensorboard(
    bigmodel: Bigmodel,
    made: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    words: tuple[str, ...],
    shown: int,
) -> None:
    monkeypatch.setattr("bigmodel.cli.commands.explanations.output.MOST_IN_TENSORBOARD", 5)
    run = Path(shutil.copytree(made(name), tmp_path / "run"))
    (run / "tensorboard" / "named").mkdir(parents=True)
    (run / "tensorboard" / "named" / "events.out.tfevents.1").touch()
    said = bigmodel("explain", run, "--tensorboard", *words, *CPU)
    assert said.status == 0, said.err
    events = EventAccumulator(str(run / "tensorboard" / "named")).Reload()
    tags = events.Tags()["images"]
    assert len(tags) == shown
    assert f"as {tags[0].rpartition('/')[0]}\n" in said.err
    for tag in tags:
        (event,) = events.Images(tag)
        picture = Image.open(io.BytesIO(event.encoded_image_string))
        assert (event.width, event.height) == picture.size


def test_what_is_shown_in_tensorboard_is_printed_as_well(
    bigmodel: Bigmodel, made: Run, tmp_path: Path
) -> None:
    run = shutil.copytree(made("table"), tmp_path / "run")
    words = ("--samples", 2, "--output", "-", *CPU)
    plain, shown = (bigmodel("explain", run, *more, *words) for more in ((), ("--tensorboard",)))
    assert shown.status == 0, shown.err
    assert shown.out == plain.out != ""


def test_targets_are_not_needed_for_attributions_but_for_shuffling(
    bigmodel: Bigmodel, made: Run, tmp_path: Path
) -> None:
    new, output = tmp_path / "new.csv", tmp_path / "why.jsonl"
    new.write_text("city,area,built\nRome,2.5,2024-03-11\n")
    said = bigmodel("explain", made("table"), "--data", new, "--output", output, *CPU)
    assert said.status == 0, said.err
    assert json.loads(output.read_text())["explained"] == "price"
    said = bigmodel("explain", made("table"), "--data", new, "--method", "permutation", *CPU)
    assert said.status == 1
    assert "there is no column 'price', which holds the answers" in said.err


@pytest.mark.parametrize("method", ["integrated_gradients", "permutation", "partial_dependence"])
def test_json_holds_everything(bigmodel: Bigmodel, made: Run, tmp_path: Path, method: str) -> None:
    output = tmp_path / "why.json"
    words = ("--method", method, "--repeats", 2, "--output", output, *CPU)
    assert bigmodel("explain", made("table"), *words).status == 0
    found = json.loads(output.read_text())
    assert found["method"] == method
    if method == "integrated_gradients":
        assert set(found["samples"][0]["attributions"]) == {"city", "area", "built"}
        return
    assert {each["column"] for each in found["columns"]} == {"city", "area", "built"}


@pytest.mark.parametrize("name", ["photos", "sounds", "raw_sounds", "sequences", "images"])
def test_samples_that_are_no_rows_are_drawn_each(
    bigmodel: Bigmodel, made: Run, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "why"
    said = bigmodel("explain", made(name), "--output", folder, "--samples", 2, *CPU)
    assert said.status == 0, said.err
    drawn = sorted(folder.iterdir())
    assert len(drawn) == 2
    with Image.open(drawn[0]) as picture:
        colours = np.asarray(picture.convert("RGB")).astype(int)
    assert (colours[..., 0] > colours[..., 2] + 60).any()  # orange
    assert (colours[..., 2] > colours[..., 0] + 60).any()  # blue
    arrays = tmp_path / "why.npz"
    words = ("--method", "occlusion", "--samples", 2, "--output", arrays, *CPU)
    assert bigmodel("explain", made(name), *words).status == 0
    with np.load(arrays) as found:
        assert len(found["attributions"]) == len(found["score"]) == len(found["explained"]) == 2


def test_no_more_samples_are_explained_than_are_drawn(
    bigmodel: Bigmodel, made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigmodel.cli.commands.explanations.output.MOST_DRAWN", 2)
    said = bigmodel("explain", made("photos"), "--output", tmp_path / "why", *CPU)
    assert "Only the first 2 of 3 samples; --samples N takes more." in said.err
    assert len(list((tmp_path / "why").iterdir())) == 2
    said = bigmodel("explain", made("photos"), "--output", tmp_path / "why.png", *CPU)
    assert "Only the first of 3 samples" in said.err
    assert "1 sample of the validation set" in said.err


@pytest.mark.parametrize(
    ("method", "file"),
    [("permutation", "why.png"), ("integrated_gradients", "why.png"), ("partial_dependence", "why")],
)
def test_columns_are_drawn(
    bigmodel: Bigmodel, made: Run, tmp_path: Path, method: str, file: str
) -> None:
    output = tmp_path / file
    words = ("--method", method, "--repeats", 2, "--output", output, *CPU)
    assert bigmodel("explain", made("table"), *words).status == 0
    drawn = [output] if output.is_file() else sorted(output.iterdir())
    assert [path.suffix for path in drawn] == [".png"] * len(drawn)
    assert len(drawn) == (3 if file == "why" else 1)


def test_files_of_columns_stay_in_the_folder_and_differ(tmp_path: Path) -> None:
    names = ["../out", "a/b", "a-b", "A/B", "long" * 99]
    line = torch.linspace(0, 1, 3)
    found = tuple(
        Dependence(name, "price", ("1", "2", "3"), line, line, line, (1.0, 2.0, 3.0)) for name in names
    )
    subject = cast(Subject, SimpleNamespace(target=Values(1, (0.0,), (1.0,))))
    write_result(found, subject, cast(ExplainedPart, None), tmp_path / "curves")
    assert [path.name for path in tmp_path.iterdir()] == ["curves"]
    drawn = {path.name for path in (tmp_path / "curves").iterdir()}
    assert drawn == {"..-out.png", "a-b.png", "a-b-2.png", "A-B-3.png", f"{'long' * 50}.png"}


def test_a_folder_that_cannot_be_made_is_one_message(
    bigmodel: Bigmodel, made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if self.name == "why":
            raise PermissionError(13, "Permission denied")
        make(self, mode, parents, exist_ok)

    make = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", refuse)
    for verb, words in (
        ("explain", ("--method", "partial_dependence", "--output")),
        ("report", ("--png",)),
    ):
        said = bigmodel(verb, made("table"), *words, tmp_path / "why", *CPU)
        assert said.status == 1
        assert said.err.endswith(f"{tmp_path / 'why'}: cannot be made: Permission denied.\n")


def test_columns_named_as_ours_keep_their_names(bigmodel: Bigmodel, made: Run, tmp_path: Path) -> None:
    output = tmp_path / "why.csv"
    assert bigmodel("explain", made("taken"), "--output", output, *CPU).status == 0
    heads = output.read_text().splitlines()[0].split(",")
    assert heads[:4] == ["row", "explained", "score", "baseline"]
    assert {"index", "add", "label", "probabilities"} <= set(heads)


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("photos", (), "explain draws images 3×8×8. Say where: --output FOLDER"),
        ("photos", ("--output", "HERE/why.csv"), "attributions of images 3×8×8 are no table."),
        ("table", ("--output", "HERE/why"), "names no type of file. Supported: .csv"),
        ("table", ("--output", "HERE/why.doc"), "'.doc' is not a supported type of file"),
        ("table", ("--method", "permutation", "--output", "HERE/why.npz"), "'.npz' is not a supported"),
        ("classes", ("--class", "9"), "--class 9: the run knows no such class."),
        ("photos", ("--method", "permutation"), "it is not for images 3×8×8 → 2 classes."),
        ("table", ("--method", "shap"), "--method shap: no such method."),
        ("table", ("--repeats", "0"), "--repeats: 0: must be a whole number, 1 or more"),
    ],
)
def test_mistakes_are_one_message(
    bigmodel: Bigmodel, made: Run, tmp_path: Path, name: str, words: tuple[str, ...], told: str
) -> None:
    given = [word.replace("HERE", str(tmp_path)) for word in words]
    said = bigmodel("explain", made(name), *given, *CPU)
    assert said.status == 1
    assert told in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(bigmodel: Bigmodel, made: Run, tmp_path: Path) -> None:
    output = tmp_path / "why.csv"
    output.write_text("mine")
    said = bigmodel("explain", made("table"), "--output", output, *CPU)
    assert said.status == 1
    assert "already exists. Add --force to replace it." in said.err
    assert output.read_text() == "mine"
