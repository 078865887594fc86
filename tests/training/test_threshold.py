"""A decision threshold found in training, with the best weights, and used wherever the run is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from bigmodel.build.resumed_run import resume_run
from bigmodel.cli.commands.eval import evaluate_data, own_data
from bigmodel.cli.commands.loaded_run import load_run
from bigmodel.cli.commands.onnx_models.inputs import front_of
from bigmodel.cli.commands.onnx_models.outputs import ExportedModel
from bigmodel.errors import ConfigError
from bigmodel.metrics.threshold import move, thresholds
from bigmodel.reporting.predictions import predictions
from bigmodel.spec import Flags
from bigmodel.training.loop import fit
from bigmodel.training.outputs import model_outputs
from tests.small_runs import built

TWO: dict[str, Any] = {"data.outputs": 2, "data.samples": 200, "data.noise": 0.5, "trainer.epochs": 3}
CHOSEN = TWO | {"threshold": "f1", "metrics": ["f1"]}


def test_it_is_found_with_the_best_weights_stored_and_used(tmp_path: Path) -> None:
    run, recorder = built(tmp_path, CHOSEN)
    run = replace(run, test=run.val)  # figures of the same samples, with it
    summary = fit(run)
    loaded = load_run(str(tmp_path), "best", "cpu", [], print)
    target = loaded.preprocessing.spec.target
    assert loaded.cuts is not None
    assert summary.threshold == thresholds(loaded.cuts, target)
    assert json.loads((tmp_path / "summary.json").read_text())["threshold"] == summary.threshold
    assert any(text.startswith("Threshold: ") for text in recorder.messages)
    part = run.dataset.part("val")
    outputs = model_outputs(loaded.model, part, loaded.preprocessing, loaded.runtime)
    targets = part.take(slice(0, len(part)))[1]
    decided = move(outputs, loaded.cuts, target).argmax(1)
    tried = (outputs[:, 1] - outputs[:, 0]).unique()
    best = max(f1_score(targets, outputs[:, 1] - outputs[:, 0] >= at) for at in tried)
    assert f1_score(targets, decided) == pytest.approx(best)
    assert summary.test["test/f1"] == pytest.approx(best)
    assert summary.best["val/f1"] <= best, "records are of 0.5"
    columns = predictions(outputs, target, probabilities=False, cuts=loaded.cuts)
    assert columns["prediction"].to_pylist() == [target.names[k] for k in decided]  # type: ignore[union-attr]
    assert evaluate_data(loaded, own_data(loaded)).metrics["accuracy"] == pytest.approx(
        float((decided == targets).double().mean())
    )


def test_each_label_has_its_own(tmp_path: Path) -> None:
    run, _ = built(tmp_path, CHOSEN | {"data.target": "flags"})
    summary = fit(replace(run, test=run.val))
    loaded = load_run(str(tmp_path), "best", "cpu", [], print)
    target = loaded.preprocessing.spec.target
    assert isinstance(target, Flags)
    assert tuple(summary.threshold) == target.names
    part = run.dataset.part("val")
    outputs = model_outputs(loaded.model, part, loaded.preprocessing, loaded.runtime)
    said = predictions(outputs, target, probabilities=False, cuts=loaded.cuts)
    decided = np.stack([said[name].to_numpy(zero_copy_only=False) for name in target.names], axis=1)
    true = part.take(slice(0, len(part)))[1]
    assert summary.test["test/macro_f1"] == pytest.approx(f1_score(true, decided, average="macro"))
    assert summary.test["test/macro_f1"] >= summary.best["val/macro_f1"]


def test_an_exported_graph_decides_with_it(tmp_path: Path) -> None:
    fit(built(tmp_path, CHOSEN)[0])
    loaded = load_run(str(tmp_path), "best", "cpu", [], print)
    front, target = front_of(loaded.preprocessing), loaded.preprocessing.spec.target
    graph = ExportedModel(front, loaded.model, target, 1, loaded.cuts).eval()
    inputs = torch.randn(500, 5)
    outputs = loaded.model(graph.preprocess(inputs))
    assert torch.equal(graph(inputs)[1], move(outputs, loaded.cuts, target).argmax(1))
    assert not torch.equal(graph(inputs)[1], outputs.argmax(1))


def test_a_resumed_run_keeps_it(tmp_path: Path) -> None:
    fit(built(tmp_path, CHOSEN)[0])
    before = load_run(str(tmp_path), "best", "cpu", [], print).cuts
    run = resume_run(built(tmp_path, CHOSEN)[0])
    assert run.state.progress.best_cuts == before
    assert fit(run).threshold == thresholds(before, run.dataset.spec.target)


def test_without_one_nothing_is_kept(tmp_path: Path) -> None:
    run, _ = built(tmp_path, TWO)
    summary = fit(run)
    assert summary.threshold == {}
    assert load_run(str(tmp_path), "best", "cpu", [], print).cuts is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": "f1"}, "threshold=f1: a decision threshold needs two classes or yes/no labels"),
        (CHOSEN | {"data.validation": False, "metrics": []}, "it is chosen on the validation set"),
        (TWO | {"threshold": "f2"}, "threshold='f2'"),
    ],
)
def test_what_has_none_is_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        built(tmp_path, settings)
    assert said in str(error.value)
