"""Metrics of choice in a run: recorded, monitored, told of each class at the end."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from bigmodel.errors import BigModelError, ConfigError
from bigmodel.reporting.summary import read_summary, write_summary
from bigmodel.training.loop import fit
from tests.small_runs import built

CHOSEN = {"metrics": ["auc", {"name": "ece", "bins": 5}]}


def test_they_are_recorded_and_choose_the_best(tmp_path: Path) -> None:
    settings = {"trainer.checkpoint.monitor": "val/auc", "trainer.epochs": 4}
    run, recorder = built(tmp_path, CHOSEN | settings)
    summary = fit(run)
    figures = [record["val/auc"] for record in recorder.records]
    assert len(figures) == 4
    assert summary.best["val/auc"] == max(figures)
    assert (summary.monitor, summary.mode) == ("val/auc", "max")
    assert summary.directions["ece"] == "min"
    assert not any(name.startswith("train/auc") for name in recorder.records[0])


def test_early_stopping_knows_which_way_they_are_better(tmp_path: Path) -> None:
    for name, way in (("auc", "max"), ("ece", "min")):
        monitor = {"trainer.early_stopping.monitor": f"val/{name}"}
        assert built(tmp_path, CHOSEN | monitor)[0].stop_monitor.mode == way


def test_what_is_not_chosen_cannot_be_monitored(tmp_path: Path) -> None:
    with pytest.raises(BigModelError, match=r"checkpoint\.monitor=val/auc: no such metric"):
        built(tmp_path, {"trainer.checkpoint.monitor": "val/auc"})


def test_a_metric_of_another_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"metrics=\[mape\]: needs real values, and the target is 3 classes"
    ):
        built(tmp_path, {"metrics": ["mape"]})


def test_figures_of_each_class_are_told_of_the_test_set_alone(tmp_path: Path) -> None:
    run, recorder = built(tmp_path, {"metrics": ["recall"], "data.samples": 200})
    summary = fit(replace(run, test=run.val))
    assert list(summary.test_by_class) == ["test/recall"]
    values = list(summary.test_by_class["test/recall"].values())
    assert len(values) == 3
    assert summary.test["test/macro_recall"] == pytest.approx(sum(values) / 3)
    assert not any(evaluation.by_class for _, evaluation in recorder.evaluations)
    write_summary(summary, tmp_path)
    kept = read_summary(tmp_path)
    assert kept is not None
    assert kept.test_by_class == summary.test_by_class
    assert json.loads((tmp_path / "summary.json").read_text())["test_by_class"] == summary.test_by_class


def test_undefined_is_told_once_with_its_reason(tmp_path: Path) -> None:
    run, recorder = built(tmp_path, {"metrics": ["auc"]})
    assert run.val is not None
    run.val.part.targets.fill_(1)  # type: ignore[union-attr]
    fit(run)
    said = [text for text in recorder.messages if "val/auc" in text]
    assert said == ["val/auc is not defined for this set: its samples are all of one class."]


def test_undefined_for_the_test_set_is_told_with_its_reason(tmp_path: Path) -> None:
    run, recorder = built(tmp_path, {"metrics": ["auc"]})
    assert run.val is not None
    test = deepcopy(run.val)
    test.part.targets.fill_(1)  # type: ignore[union-attr]
    fit(replace(run, test=test))
    said = [text for text in recorder.messages if "/auc" in text]
    assert said == ["test/auc is not defined for this set: its samples are all of one class."]
