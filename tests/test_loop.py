import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel import checkpoint, loop, stopwatch
from bigmodel.data.batches import Batches
from bigmodel.errors import CheckpointError, NonFiniteError
from bigmodel.loop import Run, fit
from bigmodel.reporting.base import Evaluation, Record

from .small_runs import STEPS_PER_EPOCH, Recorder, built, config

EVERY_STEP = {"trainer.record_every_steps": 1}


class Falsified(nn.Module):
    """A loss that is `value` at the given steps, from 1."""

    def __init__(self, true: nn.Module, value: float, *steps: int) -> None:
        super().__init__()
        self.true, self.value, self.steps, self.calls = true, value, steps, 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        loss: Tensor = self.true(outputs, targets)
        return loss * self.value if self.calls in self.steps else loss

    def normaliser(self, targets: Tensor) -> Tensor | int:
        weight: Tensor | int = self.true.normaliser(targets)  # type: ignore[operator]
        return weight


def falsify(run: Run, value: float, *steps: int) -> None:
    run.step.loss = Falsified(run.loss, value, *steps)  # type: ignore[assignment]


def after_step(run: Run, step: int, act: Callable[[], Any]) -> None:
    """Has something happen when the optimizer has done step `step`, from 1."""
    done = 0

    def hook(*_: object) -> None:
        nonlocal done
        done += 1
        if done == step:
            act()

    run.state.optimizer.register_step_post_hook(hook)


def status(run: Run) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run.info.folder / "summary.json").read_text())
    return summary


def script(
    monkeypatch: pytest.MonkeyPatch, run: Run, values: Sequence[float], name: str = "accuracy"
) -> None:
    """Evaluations of the validation part say `values`, one after the other."""
    real, rest = loop.evaluate, iter(values)

    def told(model: nn.Module, batches: Batches, *args: Any, **more: Any) -> Evaluation:
        evaluation = real(model, batches, *args, **more)
        if batches is run.val:
            evaluation.figures[name] = next(rest)
        return evaluation

    monkeypatch.setattr(loop, "evaluate", told)


def by_hand(run: Run, steps: int) -> list[tuple[float, int, int]]:
    """The same training as anyone would write it: each step's mean loss, hits and samples."""
    model = deepcopy(run.state.model).train()
    rate = run.state.optimizer.param_groups[0]["lr"]
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    figures = []
    for batch in [b for epoch in range(run.plan.epochs) for b in run.train.epoch(epoch)][:steps]:
        optimizer.zero_grad()
        outputs = model(batch.inputs)
        loss = F.cross_entropy(outputs, batch.targets)
        loss.backward()
        optimizer.step()
        hits = int((outputs.argmax(1) == batch.targets).sum())
        figures.append((loss.item(), hits, len(batch)))
    return figures


SGD = {"optimizer": "sgd", "optimizer.momentum": 0.0, "optimizer.lr": 0.1}


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({}, [6, 12]),
        ({"trainer.max_steps": 10}, [6, 10]),
        ({"trainer.record_every_steps": 4}, [4, 6, 8, 12]),
        ({"trainer.record_every_steps": 5, "trainer.eval_every": 2}, [5, 10, 12]),
        ({"trainer.eval_every_steps": 4, "trainer.log_every_steps": 3}, [3, 4, 6, 8, 9, 12]),
    ],
    ids=str,
)
def test_a_record_is_of_the_samples_since_the_one_before(
    tmp_path: Path, settings: dict[str, Any], ends: list[int]
) -> None:
    run, told = built(tmp_path, SGD | settings)
    figures = by_hand(run, 12)
    fit(run)
    assert [record["step"] for record in told.records] == ends
    for start, end, record in zip([0, *ends], ends, told.records, strict=False):
        window = figures[start:end]
        samples = sum(count for _, _, count in window)
        loss = sum(loss * count for loss, _, count in window) / samples
        assert record["train/loss"] == pytest.approx(loss, rel=1e-5)
        assert record["train/accuracy"] == pytest.approx(sum(hits for _, hits, _ in window) / samples)
        assert record["epoch"] == -(-end // STEPS_PER_EPOCH)


def test_the_mean_counts_samples_not_batches(tmp_path: Path) -> None:
    run, told = built(tmp_path, SGD | {"trainer.epochs": 1, "trainer.max_steps": 6})
    figures = by_hand(run, 6)
    fit(run)
    of_batches = sum(loss for loss, _, _ in figures) / len(figures)
    assert abs(of_batches - told.records[0]["train/loss"]) > 1e-4  # or this file proves nothing


def test_signs_of_life_change_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet, without = built(tmp_path / "a", SGD)
    busy, told = built(tmp_path / "b", SGD)
    for run in (quiet, busy):
        run.info.folder.mkdir()
    monkeypatch.setattr(stopwatch, "SIGN_OF_LIFE", 1e9)
    fit(quiet)
    monkeypatch.setattr(stopwatch, "SIGN_OF_LIFE", -1.0)
    fit(busy)
    assert without.signs == []
    assert [sign.step for sign in told.signs] == list(range(1, 13))
    assert [sign.epoch for sign in told.signs] == [1] * 6 + [2] * 6
    assert told.signs[0].figure is None
    assert told.signs[-1].figure == told.records[0]["val/accuracy"]
    assert [steady(record) for record in told.records] == [steady(record) for record in without.records]


def steady(record: Record) -> Record:
    return {key: value for key, value in record.items() if key != "samples_per_second"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("step", [8, 12])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, value: float, step: int) -> None:
    settings = {
        "scheduler": "step",
        "scheduler.step_size": 1,
        "scheduler.gamma": 0.5,
        "optimizer.lr": 1e-3,
    }
    run, told = built(tmp_path, settings)
    falsify(run, value, step)
    with pytest.raises(NonFiniteError) as caught:
        fit(run)
    assert f"became {value} at step {step} (epoch 2), at learning rate 0.0005." in str(caught.value)
    groups, facts = checkpoint.load(tmp_path / "checkpoints" / "last")
    assert facts["progress"]["step"] == 6
    assert all(bool(weight.isfinite().all()) for weight in groups["model"].values())
    assert status(run)["status"] == "failed"
    assert status(run)["error"] == str(caught.value)
    assert [record["step"] for record in told.records] == [6]


def test_the_first_of_several_bad_losses_is_named(tmp_path: Path) -> None:
    run, _ = built(tmp_path)
    falsify(run, float("nan"), 3, 4, 5)
    with pytest.raises(NonFiniteError, match="at step 3 "):
        fit(run)
    assert list(tmp_path.rglob("manifest.json")) == []


@pytest.mark.parametrize("step", [6, 12])
def test_weights_that_are_not_finite_are_never_written(tmp_path: Path, step: int) -> None:
    """The loss of that step was fine: it is the update that broke the weights."""
    run, _ = built(tmp_path)

    def poison() -> None:
        with torch.no_grad():
            run.state.model.head.weight[0, 0] = float("nan")  # type: ignore[union-attr, index, operator]

    after_step(run, step, poison)
    with pytest.raises(NonFiniteError, match=f"Step {step} left NaN or infinite weights in head.weight"):
        fit(run)
    written = sorted(tmp_path.rglob("manifest.json"))
    assert (written != []) == (step == 12)
    for manifest in written:
        groups, facts = checkpoint.load(manifest.parent)
        assert facts["progress"]["step"] == 6
        assert all(bool(weight.isfinite().all()) for weight in groups["model"].values())
    assert status(run)["status"] == "failed"


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
    monkeypatch.setattr(run, "monitor", replace(run.monitor, name="val/loss", mode="max"))
    summary = fit(run)
    assert summary.epochs == 3
    assert summary.best["val/loss"] == max(loss for loss in losses(run))


def losses(run: Run) -> list[float]:
    recorder = run.sinks
    assert isinstance(recorder, Recorder)
    return [record["val/loss"] for record in recorder.records]


def test_a_run_may_end_within_an_epoch(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"trainer.max_steps": 8, "trainer.epochs": 50})
    summary = fit(run)
    assert [(record["epoch"], record["step"]) for record in told.records] == [(1, 6), (2, 8)]
    assert "val/loss" in told.records[-1]
    assert (summary.epochs, summary.steps) == (1.33, 8)
    assert checkpoint.load(tmp_path / "checkpoints" / "last")[1]["progress"]["step"] == 8


@pytest.mark.parametrize("interval", [0.0, 1e9])
@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [([0.2, 0.9, 0.3, 0.9], "max", 1), ([0.2, 0.9, 0.1, 0.3], "min", 2), ([0.1, 0.2, 0.3], "max", 2)],
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
    run.test = Batches(tested, "test", config().data, batch_size=run.val.batch_size)
    scripted, seen = loop.evaluate, []

    def spy(model: nn.Module, batches: Batches, *args: Any, **more: Any) -> Evaluation:
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        seen.append(("test" if batches is run.test else "val", weights))
        return scripted(model, batches, *args, **more)

    monkeypatch.setattr(loop, "evaluate", spy)
    summary = fit(run)
    assert [part for part, _ in seen] == [*["val"] * len(values), "test"]
    chosen, weights = seen[best][1], seen[-1][1]
    assert all(torch.equal(chosen[name], value) for name, value in weights.items())
    assert summary.best["step"] == told.records[best]["step"]
    # the two parts hold the same samples here, so that the figures have to agree
    assert summary.test["test/loss"] == told.records[best]["val/loss"]
    assert not any(key.startswith("test/") for record in told.records for key in record)
    assert status(run)["test"] == summary.test


def test_without_a_test_part_there_are_no_test_figures(tmp_path: Path) -> None:
    run, _ = built(tmp_path)
    assert fit(run).test == {}


def test_the_best_is_the_first_of_equals_and_keeps_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told = built(tmp_path, {"trainer.epochs": 4})
    script(monkeypatch, run, [0.5, 0.8, 0.8, 0.7])
    summary = fit(run)
    assert summary.best == told.records[1]
    assert summary.final == told.records[3]
    assert (summary.monitor, summary.mode) == ("val/accuracy", "max")
    saved = checkpoint.load(tmp_path / "checkpoints" / "best")[1]["progress"]
    assert (saved["step"], saved["best_value"]) == (12, 0.8)


def test_the_training_loss_may_choose(tmp_path: Path) -> None:
    run, told = built(
        tmp_path,
        {"trainer.epochs": 3, "trainer.checkpoint": {"monitor": "train/loss", "interval": 0.0}},
    )
    summary = fit(run)
    assert summary.best["train/loss"] == min(record["train/loss"] for record in told.records)
    assert run.state.progress.best_value == pytest.approx(summary.best["train/loss"])


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (None, "finished", None),
        (KeyboardInterrupt(), "stopped", "interrupted"),
        (CheckpointError("the disk is full"), "failed", "the disk is full"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
        (SystemExit(3), "failed", "SystemExit: 3"),
    ],
    ids=["end", "Ctrl-C", "ours", "a fault", "exit"],
)
def test_every_exit_is_told(
    tmp_path: Path, error: BaseException | None, expected: str, message: str | None
) -> None:
    run, told = built(tmp_path)
    while_running: list[dict[str, Any]] = []

    def act() -> None:
        while_running.append(status(run))
        if error is not None:
            raise error

    after_step(run, 9, act)
    if error is None:
        fit(run)
    else:
        with pytest.raises(type(error)):
            fit(run)
    assert while_running[0]["status"] == "running"
    assert while_running[0]["environment"]["torch"] == torch.__version__
    assert told.calls[0] == "start"
    assert told.calls[-2:] == ["finish", "close"]
    assert told.summary is not None
    assert (told.summary.status, told.summary.error) == (expected, message)
    assert told.summary.final == told.records[-1]
    assert told.summary.best in told.records
    assert told.summary.steps == (12 if error is None else 8)
    assert told.summary.seconds > 0
    on_disk = status(run)
    assert (on_disk["status"], on_disk["error"]) == (expected, message)
    assert on_disk["best"] == told.summary.best
    assert on_disk["parameters"] == sum(p.numel() for p in run.state.model.parameters())


def test_what_is_due_is_done_in_order(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"trainer.log_every": 2, "trainer.histograms": True})
    saves: list[int] = []
    offer = run.saver.offer

    def noting(*state: Any, **how: Any) -> None:
        told.calls.append("save")
        saves.append(state[1]["progress"]["step"])
        offer(*state, **how)

    run.saver.offer = noting  # type: ignore[method-assign]
    fit(run)
    quiet, loud = ["weights", "record", "save"], ["evaluated", "weights", "record", "log", "save"]
    assert told.calls == ["start", *quiet, *loud, "finish", "close"]
    assert saves == [6, 12]
    assert [step for step, _ in told.evaluations] == [12]


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"interval": "step", "step_size": 4}, [1.0] * 4 + [0.5] * 4 + [0.25] * 4),
        ({"interval": "epoch", "step_size": 1}, [1.0] * 6 + [0.5] * 6),
        (
            {"interval": "step", "step_size": 99, "warmup": 2, "warmup_start": 0.5},
            [0.5, 0.75] + [1] * 10,
        ),
    ],
    ids=str,
)
def test_the_rate_follows_the_schedule(
    tmp_path: Path, settings: dict[str, Any], rates: list[float]
) -> None:
    scheduler = {"scheduler": {"name": "step", "gamma": 0.5} | settings}
    run, told = built(tmp_path, SGD | EVERY_STEP | scheduler)
    fit(run)
    assert [record["lr"] for record in told.records] == pytest.approx([0.1 * rate for rate in rates])


def test_plateau_hears_of_the_monitored_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plateau = {"scheduler": "plateau", "scheduler.patience": 0, "scheduler.factor": 0.5}
    run, told = built(tmp_path, SGD | plateau | {"trainer.epochs": 5})
    script(monkeypatch, run, [0.5, 0.6, 0.6, 0.7, 0.2])
    fit(run)
    rates = [record["lr"] for record in told.records]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05])


def test_the_gradient_s_norm_is_that_of_the_record_s_last_step(tmp_path: Path) -> None:
    run, told = built(tmp_path, SGD)
    norms: list[float] = []

    def note(*_: object) -> None:
        parts = [p.grad.flatten() for p in run.state.model.parameters() if p.grad is not None]
        norms.append(float(torch.cat(parts).norm()))

    run.state.optimizer.register_step_pre_hook(note)
    fit(run)
    assert [record["grad_norm"] for record in told.records] == pytest.approx([norms[5], norms[11]])
