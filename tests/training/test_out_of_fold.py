"""What a run of a cross-validation predicts for the samples that it holds out."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.checkpointing import checkpoint
from bigmodel.errors import CheckpointError
from bigmodel.reporting.predictions import decode_outputs
from bigmodel.training import out_of_fold
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import Recorder, built, model_inputs

FOLDS = {"data.folds": 4, "data.val_fold": 2}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / out_of_fold.NAME).open(newline="") as file:
        return list(csv.DictReader(file))


def fitted(folder: Path, **settings: Any) -> Run:
    run = built(folder, {**FOLDS, **settings})[0]
    fit(run)
    return run


def expected(run: Run) -> torch.Tensor:
    """Predictions in the order of the data, by the best checkpoint, read by hand."""
    run.state.load_model(checkpoint.load_best(run.saver.checkpoints)[0]["model"])
    assert run.dataset.val_rows is not None
    part = run.dataset.part("val").select(run.dataset.val_rows.argsort())
    with torch.no_grad():
        outputs = run.state.model.eval()(
            model_inputs(run.dataset.preprocessing, part.take(slice(0, len(part)))[0])
        )
    return decode_outputs(outputs, run.dataset.spec.target)


@pytest.mark.parametrize("pieces", [1 << 16, 7])
def test_classes(tmp_path: Path, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_fold, "_ROWS", pieces)
    run = fitted(tmp_path, **{"trainer.epochs": 4, "optimizer.lr": 0.3})
    found, probabilities = rows(tmp_path), expected(run)
    assert list(found[0])[:5] == ["row", "fold", "target", "prediction", "probability"]
    assert [int(row["row"]) for row in found] == sorted(run.dataset.val_rows.tolist())  # type: ignore[union-attr]
    assert {row["fold"] for row in found} == {"2"}
    names = run.dataset.spec.target.names  # type: ignore[union-attr]
    for row, given in zip(found, probabilities, strict=True):
        assert row["prediction"] == names[int(given.argmax())]
        assert [float(row[f"probability of {n}"]) for n in names] == pytest.approx(
            given.tolist(), abs=1e-6
        )
    hits = sum(row["prediction"] == row["target"] for row in found) / len(found)
    assert hits == pytest.approx(run.summary.best["val/accuracy"])


def test_real_values_in_their_own_unit(tmp_path: Path) -> None:
    run = fitted(tmp_path, **{"data.target": "values", "data.outputs": 1})
    assert run.dataset.header_rows[0] == ("Fold", "2 of 4, counted from 0, is held out for validation")
    assert isinstance(run.sinks, Recorder)
    assert run.sinks.messages == ["Predictions for 20 samples of fold 2: out_of_fold.csv"]
    found = rows(tmp_path)
    assert list(found[0]) == ["row", "fold", "target", "prediction"]
    assert [float(row["prediction"]) for row in found] == pytest.approx(
        expected(run)[:, 0].tolist(), abs=1e-5
    )
    error = sum((float(row["prediction"]) - float(row["target"])) ** 2 for row in found) / len(found)
    assert error**0.5 == pytest.approx(run.summary.best["val/rmse"], rel=1e-4)


def test_labels_that_do_not_exclude_each_other(tmp_path: Path) -> None:
    fitted(tmp_path, **{"data.target": "flags", "data.outputs": 2})
    found = rows(tmp_path)
    one, other = (name.removeprefix("target ") for name in found[0] if name.startswith("target "))
    assert list(found[0])[2:6] == [f"target {one}", f"target {other}", one, other]
    assert {row[f"target {one}"] for row in found} <= {"0", "1"}


def test_of_many_classes_only_the_likeliest_has_a_probability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out_of_fold, "MOST_PROBABILITIES", 2)
    fitted(tmp_path)
    assert list(rows(tmp_path)[0])[-1] == "probability"


def test_a_limit_and_texts_of_different_lengths(tmp_path: Path) -> None:
    lines = [f"{'good ' * (n % 5 + 1)}{n},{'ab'[n % 2]}" for n in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *lines]))
    texts = {"name": "text_labels", "path": str(tmp_path / "a.csv"), "unit": "character"}
    data = {**texts, "batch_size": 4, "folds": 2, "val_fold": 0}
    run = built(tmp_path / "run", {"data": data, "trainer.limit": {"val": 3}})[0]
    fit(run)
    found = rows(tmp_path / "run")
    assert len(found) == 12
    assert [row["target"] for row in found] == ["ab"[int(row["row"]) % 2] for row in found]
    assert [float(row["probability of a"]) for row in found] == pytest.approx(
        expected(run)[:, 0].tolist(), abs=1e-5
    )


def test_without_folds_there_is_no_file(tmp_path: Path) -> None:
    fitted(tmp_path, **{"data.folds": None, "data.val_fold": None})
    assert not (tmp_path / out_of_fold.NAME).exists()


def test_of_several_ranks_the_first_alone_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fitted(tmp_path)
    (tmp_path / out_of_fold.NAME).unlink()
    monkeypatch.setattr(run.ranks, "rank", 1, raising=False)
    out_of_fold.write_predictions(run)
    assert not (tmp_path / out_of_fold.NAME).exists()


def test_a_run_that_cannot_write_it_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a resumed sweep does it again."""
    run = built(tmp_path, FOLDS)[0]

    def full(*_: Any, **__: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(out_of_fold, "csv_bytes", full)
    with pytest.raises(CheckpointError, match=out_of_fold.NAME):
        fit(run)
    assert run.summary.status == "failed"
