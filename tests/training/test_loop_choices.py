"""What validation decides: when to stop, and with which weights the test set is read."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing import checkpoint
from bigmodel.data.batching.batches import Batches, make_batches
from bigmodel.data.parts import Part
from bigmodel.errors import ConfigError
from bigmodel.reporting.base import EvaluationResult
from bigmodel.reporting.summary import read_summary
from bigmodel.training import recovery, validation
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import Recorder, built, config


def script(
    monkeypatch: pytest.MonkeyPatch, run: Run, values: Sequence[float], name: str = "accuracy"
) -> None:
    """Evaluations of the validation set say `values`, one after the other."""
    real, rest = validation.evaluate, iter(values)

    def told(model: nn.Module, batches: Batches, *args: Any, **more: Any) -> EvaluationResult:
        evaluation = real(model, batches, *args, **more)
        if batches is run.val:
            evaluation.metrics[name] = next(rest)
        return evaluation

    monkeypatch.setattr(validation, "evaluate", told)


@pytest.mark.parametrize(
    ("values", "settings", "epochs"),
    [
        ([0.5, 0.6, 0.6, 0.6, 0.9], {"patience": 2}, 4),
        ([0.5, 0.6, 0.6, 0.7, 0.7], {"patience": 2}, None),
        ([0.5, 0.65, 0.7, 0.74, 0.9], {"patience": 2, "min_delta": 0.1}, 4),
        ([0.5, 0.65, 0.7, 0.76, 0.8], {"patience": 2, "min_delta": 0.1}, None),
        ([0.5, 0.4, 0.3, 0.2, 0.1], {"patience": 3, "mode": "min"}, None),
        ([0.5, 0.6, 0.7, 0.8, 0.9], {"patience": 3, "mode": "min"}, 4),
        ([0.5, 0.1, 0.1, 0.1, 0.1], {"patience": None}, None),
        ([float("nan")] * 5, {"patience": 4}, 4),
    ],
)
def test_early_stopping(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: list[float],
    settings: dict[str, Any],
    epochs: int | None,
) -> None:
    run, told = built(
        tmp_path, {"trainer.epochs": 5, "trainer.log_every": 5, "trainer.early_stopping": settings}
    )
    script(monkeypatch, run, values)
    summary = fit(run)
    assert len(told.records) == (epochs or 5)
    assert any("Stopping early" in message for message in told.messages) == (epochs is not None)
    assert summary.status == "finished"
    assert summary.epochs == (epochs or 5)
    assert told.logged == told.records[-1:]  # what ends a run is told, whatever the rhythm
    assert checkpoint.load(tmp_path / "checkpoints" / "last")[1]["progress"]["step"] == summary.steps


def test_the_evaluation_that_stops_a_run_is_shown_though_no_line_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"trainer.epochs": 9, "trainer.log_every": 9, "trainer.early_stopping": {"patience": 1}}
    run, told = built(tmp_path, settings)
    script(monkeypatch, run, [0.3, 0.4, 0.2])
    fit(run)
    assert [step for step, _ in told.evaluations] == [3 * run.plan.steps_per_epoch]
    assert told.evaluations[0][1].samples


def test_where_nothing_was_ever_the_best_the_last_weights_are_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told = built(tmp_path, {"trainer.epochs": 1})
    run = replace(run, test=run.val)
    monkeypatch.setattr(run.monitor.__class__, "better", lambda *_: False)
    summary = fit(run)
    assert (summary.status, "test/accuracy" in summary.test) == ("finished", True)
    assert any("evaluated with the last weights" in message for message in told.messages)


def test_early_stopping_may_watch_another_figure_than_the_one_that_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = built(
        tmp_path,
        {
            "trainer.epochs": 5,
            "trainer.early_stopping": {"patience": 1, "monitor": "val/macro_f1", "mode": "min"},
        },
    )
    script(monkeypatch, run, [0.3, 0.2, 0.4, 0.1, 0.0], "macro_f1")
    run = replace(run, monitor=replace(run.monitor, name="val/loss", mode="max"))
    summary = fit(run)
    assert summary.epochs == 3
    assert summary.best["val/loss"] == max(loss for loss in losses(run))


def losses(run: Run) -> list[float]:
    recorder = run.sinks
    assert isinstance(recorder, Recorder)
    return [record["val/loss"] for record in recorder.records]


@pytest.mark.parametrize("interval", [0.0, 1e9])
@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [([0.2, 0.9, 0.3, 0.8], "max", 1), ([0.2, 0.9, 0.1, 0.3], "min", 2), ([0.1, 0.2, 0.3], "max", 2)],
)
def test_the_test_part_is_read_once_with_the_best_weights(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: list[float],
    mode: str,
    best: int,
    ema: float | None,
    interval: float,
) -> None:
    run, told = built(
        tmp_path,
        {
            "trainer.epochs": len(values),
            "trainer.ema": ema,
            "trainer.checkpoint": {"interval": interval, "mode": mode},
        },
    )
    script(monkeypatch, run, values)
    tested = replace(run.dataset, test=run.dataset.val)
    part = make_batches(tested, "test", config().data, batch_size=run.val.batch_size)
    run = replace(run, test=part)
    scripted, seen = validation.evaluate, []

    def spy(model: nn.Module, batches: Batches, *args: Any, **more: Any) -> EvaluationResult:
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        seen.append(("test" if batches is run.test else "val", weights))
        return scripted(model, batches, *args, **more)

    monkeypatch.setattr(validation, "evaluate", spy)
    summary = fit(run)
    assert [part for part, _ in seen] == [*["val"] * len(values), "test"]
    chosen, weights = seen[best][1], seen[-1][1]
    assert all(torch.equal(chosen[name], value) for name, value in weights.items())
    assert summary.best["step"] == told.records[best]["step"]
    # the two parts hold the same samples here, so that the metrics have to agree
    assert summary.test["test/loss"] == told.records[best]["val/loss"]
    assert not any(key.startswith("test/") for record in told.records for key in record)
    on_disk = read_summary(tmp_path)
    assert on_disk is not None
    assert on_disk.test == summary.test


def test_without_a_test_part_there_are_no_test_figures(tmp_path: Path) -> None:
    run, _ = built(tmp_path)
    assert fit(run).test == {}


def equals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: Sequence[float], **settings: Any
) -> tuple[Run, Recorder]:
    """A run of four epochs whose second to fourth are equally accurate."""
    run, told = built(tmp_path, {"trainer.epochs": 4, **settings})
    script(monkeypatch, run, [0.5, 0.8, 0.8, 0.8])
    script(monkeypatch, run, losses, "loss")
    return run, told


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([0.1, 0.5, 0.3, 0.2], 3),
        ([0.1, 0.5, 0.2, 0.3], 2),
        ([0.1, 0.5, 0.5, 0.5], 1),
        ([0.1, 0.5, float("nan"), float("inf")], 1),
    ],
)
def test_the_best_of_equals_has_the_least_validation_loss_and_is_the_first_of_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: list[float], best: int
) -> None:
    run, told = equals(tmp_path, monkeypatch, losses)
    summary = fit(run)
    assert summary.best == told.records[best]
    assert summary.final == told.records[3]
    assert (summary.monitor, summary.mode) == ("val/accuracy", "max")
    saved = checkpoint.load(tmp_path / "checkpoints" / "best")[1]["progress"]
    assert (saved["step"], saved["best_value"]) == (told.records[best]["step"], 0.8)


@pytest.mark.parametrize(("loss", "best"), [(0.2, 3), (0.4, 2)], ids=["lower", "higher"])
def test_of_equals_before_and_after_a_resume_the_one_with_less_loss_is_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: float, best: int
) -> None:
    settings = {"trainer.epochs": 3, "trainer.checkpoint": {"interval": 0.0}}
    run, before = built(tmp_path, settings)
    with monkeypatch.context() as patch:
        script(patch, run, [0.5, 0.8, 0.8])
        script(patch, run, [0.1, 0.5, 0.3], "loss")
        assert fit(run).best == before.records[2]
    run, after = built(tmp_path, settings | {"trainer.epochs": 4})
    run = resume_run(run)
    script(monkeypatch, run, [0.8])
    script(monkeypatch, run, [loss], "loss")
    summary = fit(run)
    (record,) = after.records
    assert summary.best == [*before.records, record][best]
    saved = checkpoint.load(tmp_path / "checkpoints" / "best")[1]["progress"]
    assert saved["step"] == summary.best["step"]


def test_best_checkpoints_that_are_kept_are_ranked_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"trainer.checkpoint": {"keep": 3, "interval": 0.0}}
    run, told = equals(tmp_path, monkeypatch, [0.1, 0.5, 0.3, 0.2], **kept)
    fit(run)
    steps = [
        checkpoint.load(tmp_path / "checkpoints" / name)[1]["progress"]["step"]
        for name in ("best", "best-2", "best-3")
    ]
    assert steps == [told.records[place]["step"] for place in (3, 2, 1)]


def test_a_lower_loss_among_equals_does_not_keep_a_run_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = {"trainer.early_stopping": {"patience": 2}, "trainer.epochs": 6}
    run, told = equals(tmp_path, monkeypatch, [0.4, 0.3, 0.2, 0.1], **stopping)
    summary = fit(run)
    assert len(told.records) == 4
    assert any("Stopping early" in message for message in told.messages)
    assert summary.best == told.records[3]


@pytest.mark.parametrize("monitor", ["auto", "val/r2"])
def test_a_figure_that_the_samples_leave_undefined_is_told_once_and_others_stand(
    tmp_path: Path, monitor: str
) -> None:
    chosen = {"trainer.checkpoint.monitor": monitor, "trainer.epochs": 3}
    run, told = built(tmp_path, {"data.target": "values", **chosen})
    assert isinstance(run.dataset.val, Part)
    run.dataset.val.targets.fill_(0.5)
    summary = fit(run)
    for record in told.records:
        assert math.isnan(record["val/r2"])
        assert math.isfinite(record["val/rmse"])
    found = [message for message in told.messages if "val/r2" in message]
    assert len(found) == 1
    assert "val/r2 is not defined for this set: all of its values are equal." in found[0]
    assert ("trainer.checkpoint.monitor" in found[0]) == (monitor == "val/r2")
    assert not any("the model gives NaN" in message for message in told.messages)
    assert bool(summary.best) == (monitor == "auto")


def test_the_training_loss_may_choose(tmp_path: Path) -> None:
    run, told = built(
        tmp_path,
        {"trainer.epochs": 3, "trainer.checkpoint": {"monitor": "train/loss", "interval": 0.0}},
    )
    summary = fit(run)
    assert summary.best["train/loss"] == min(record["train/loss"] for record in told.records)
    assert run.state.progress.best_value == pytest.approx(summary.best["train/loss"])


def test_plateau_hears_of_the_monitored_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plateau = {"scheduler": "plateau", "scheduler.patience": 0, "scheduler.factor": 0.5}
    run, told = built(tmp_path, plateau | {"optimizer.lr": 0.1, "trainer.epochs": 5})
    script(monkeypatch, run, [0.5, 0.6, 0.6, 0.7, 0.2])
    fit(run)
    rates = [record["lr"] for record in told.records]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05])


def test_without_a_validation_set_the_last_weights_are_tested(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"data.validation": False})
    assert len(run.train) == 80
    run = replace(run, test=run.train)
    summary = fit(run)
    weights = checkpoint.load(tmp_path / "checkpoints" / "last")[0]["model"]
    assert all(torch.equal(weights[name], value) for name, value in run.state.model.state_dict().items())
    assert (summary.status, summary.steps, "test/accuracy" in summary.test) == ("finished", 14, True)
    assert (summary.best, summary.monitor, told.evaluations, told.messages) == ({}, "", [], [])
    assert not [name for record in told.records for name in record if name.startswith("val/")]


def test_a_run_that_goes_on_without_a_validation_set_has_no_best_checkpoint(tmp_path: Path) -> None:
    fit(built(tmp_path, {"trainer.epochs": 1})[0])
    assert (tmp_path / "checkpoints" / "best").is_dir()
    run, _ = built(tmp_path, {"data.validation": False, "trainer.epochs": 2})
    fit(resume_run(run, changed=["data.validation", "trainer.epochs"]))
    assert not any(path.is_dir() for path in checkpoint.best_candidates(tmp_path / "checkpoints"))


def test_without_a_validation_set_the_training_loss_may_choose(tmp_path: Path) -> None:
    settings = {
        "data.validation": False,
        "scheduler": "plateau",
        "trainer.checkpoint.monitor": "train/loss",
        "trainer.early_stopping.patience": 9,
    }
    run, told = built(tmp_path, settings)
    summary = fit(run)
    assert summary.best["train/loss"] == min(record["train/loss"] for record in told.records)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheduler": "plateau"}, "scheduler=plateau: it follows the metric"),
        ({"trainer.early_stopping.patience": 2}, "patience=2: there is no validation set to watch"),
        (
            {"trainer.checkpoint.monitor": "val/loss"},
            "val/loss: no such metric. There is no valid",
        ),
        ({"data.folds": 2, "data.val_fold": 0}, "data.folds=2 hold a fold out"),
    ],
)
def test_what_needs_a_validation_set_is_refused_without(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        built(tmp_path, {"data.validation": False} | settings)


def test_by_default_the_same_accuracy_at_a_lower_loss_is_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accuracy comes in steps: the loss still falls when patience for the accuracy alone is over."""
    settings = {"trainer.epochs": "auto", "trainer.eval_every": 40, "scheduler": "constant"}
    for patience, epochs in (("auto", 167), (3, 160)):
        run, _ = built(
            tmp_path / str(patience), settings | {"trainer.early_stopping": {"patience": patience}}
        )
        assert run.plan.patience == 3
        losses = iter([0.5, 0.4, 0.3, 0.2, 0.1])
        with monkeypatch.context() as patch:
            script(patch, run, [0.5] * 5)
            patch.setattr(validation, "evaluate", _with_loss(validation.evaluate, run, losses))
            assert fit(run).epochs == epochs


def _with_loss(evaluate: Any, run: Run, losses: Iterator[float]) -> Any:
    def told(model: nn.Module, batches: Batches, *args: Any, **more: Any) -> EvaluationResult:
        evaluation: EvaluationResult = evaluate(model, batches, *args, **more)
        if batches is run.val:
            evaluation.metrics["loss"] = next(losses)
        return evaluation

    return told


def test_a_run_by_the_data_is_resumed_with_the_same_length(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"trainer.epochs": "auto"})
    assert ("Training", "167 epochs × 6 steps (auto: 1,000 steps), batches of 12") in run.info.rows
    run.state.progress.step = 12
    run.saver.start()
    recovery.save(run, best=False, last=True, now=True)
    run.saver.flush()
    resumed = resume_run(built(tmp_path, {"trainer.epochs": "auto"})[0])
    assert resumed.plan == run.plan
    assert resumed.state.schedule.change is None
    assert "Schedule" not in dict(resumed.info.rows)
    assert told.messages == []


def test_a_decay_that_goes_by_the_length_goes_by_the_new_one(tmp_path: Path) -> None:
    by_length = {"optimizer.weight_decay": "auto", "optimizer.lr": 0.01}
    run, _ = built(tmp_path, by_length | {"trainer.epochs": 50})
    fit(run)
    for epochs, decay in ((50, 20 / 3), (500, 20 / 30)):
        longer = resume_run(built(tmp_path, by_length | {"trainer.epochs": epochs})[0])
        assert longer.state.optimizer.param_groups[0]["weight_decay"] == pytest.approx(decay)
        told = dict(longer.info.rows)["Optimizer"]
        assert f"weight decay {decay:.3g}," in told


def test_without_a_validation_set_nothing_ends_a_run_by_the_data(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"trainer.epochs": "auto", "data.validation": False})
    assert fit(run).steps == 1001
