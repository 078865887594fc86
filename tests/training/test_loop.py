from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bigmodel.checkpointing import checkpoint
from bigmodel.reporting.base import Record
from bigmodel.training import stopwatch
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import STEPS_PER_EPOCH, built

EVERY_STEP = {"trainer.record_every_steps": 1}


def by_hand(run: Run, steps: int) -> list[tuple[float, int, int]]:
    """The same training as anyone would write it: each step's mean loss, hits and samples."""
    model = deepcopy(run.state.model).train()
    rate = run.state.optimizer.param_groups[0]["lr"]
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    metrics = []
    for batch in [b for epoch in range(run.plan.epochs) for b in run.train.epoch(epoch)][:steps]:
        optimizer.zero_grad()
        outputs = model(batch.inputs)
        loss = F.cross_entropy(outputs, batch.targets)
        loss.backward()
        optimizer.step()
        hits = int((outputs.argmax(1) == batch.targets).sum())
        metrics.append((loss.item(), hits, len(batch)))
    return metrics


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
    metrics = by_hand(run, 12)
    fit(run)
    assert [record["step"] for record in told.records] == ends
    for start, end, record in zip([0, *ends], ends, told.records, strict=False):
        window = metrics[start:end]
        samples = sum(count for _, _, count in window)
        loss = sum(loss * count for loss, _, count in window) / samples
        assert record["train/loss"] == pytest.approx(loss, rel=1e-5)
        assert record["train/accuracy"] == pytest.approx(sum(hits for _, hits, _ in window) / samples)
        assert record["epoch"] == -(-end // STEPS_PER_EPOCH)


def test_the_mean_counts_samples_not_batches(tmp_path: Path) -> None:
    run, told = built(tmp_path, SGD | {"trainer.epochs": 1, "trainer.max_steps": 6})
    metrics = by_hand(run, 6)
    fit(run)
    of_batches = sum(loss for loss, _, _ in metrics) / len(metrics)
    assert abs(of_batches - told.records[0]["train/loss"]) > 1e-4  # or this file proves nothing


def test_signs_of_life_change_no_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet, without = built(tmp_path / "a", SGD)
    busy, told = built(tmp_path / "b", SGD)
    for run in (quiet, busy):
        run.info.folder.mkdir()
    monkeypatch.setattr(stopwatch, "UPDATE_INTERVAL", 1e9)
    fit(quiet)
    monkeypatch.setattr(stopwatch, "UPDATE_INTERVAL", -1.0)
    fit(busy)
    assert without.signs == []
    assert [sign.step for sign in told.signs] == list(range(1, 13))
    assert [sign.epoch for sign in told.signs] == [1] * 6 + [2] * 6
    assert told.signs[0].metric is None
    assert told.signs[-1].metric == told.records[0]["val/accuracy"]
    assert [steady(record) for record in told.records] == [steady(record) for record in without.records]


def steady(record: Record) -> Record:
    return {key: value for key, value in record.items() if key != "samples_per_second"}


def test_a_run_may_end_within_an_epoch(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"trainer.max_steps": 8, "trainer.epochs": 50})
    summary = fit(run)
    assert [(record["epoch"], record["step"]) for record in told.records] == [(1, 6), (2, 8)]
    assert "val/loss" in told.records[-1]
    assert (summary.epochs, summary.steps) == (1.33, 8)
    assert checkpoint.load(tmp_path / "checkpoints" / "last")[1]["progress"]["step"] == 8


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


def test_the_gradient_s_norm_is_that_of_the_record_s_last_step(tmp_path: Path) -> None:
    run, told = built(tmp_path, SGD)
    norms: list[float] = []

    def note(*_: object) -> None:
        parts = [p.grad.flatten() for p in run.state.model.parameters() if p.grad is not None]
        norms.append(float(torch.cat(parts).norm()))

    run.state.optimizer.register_step_pre_hook(note)
    fit(run)
    assert [record["grad_norm"] for record in told.records] == pytest.approx([norms[5], norms[11]])


def test_minutes_are_a_rhythm_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = built(
        tmp_path, {"trainer.checkpoint": {"every": 99, "every_minutes": 2.0, "interval": 1e9}}
    )
    monkeypatch.setattr(run.watch, "tick", lambda: True)
    now, offered = 0.0, []
    real = run.saver.offer
    monkeypatch.setattr(run.saver, "_clock", lambda: now)
    run.saver._written = 0.0

    def offer(*state: Any, parts: Any, best: bool, last: bool, now: bool) -> None:
        if last:
            offered.append((run.state.progress.step, now))
        real(*state, parts=parts, best=best, last=last, now=now)

    def minute_passes(*_: object) -> None:
        nonlocal now
        now += 60.0

    monkeypatch.setattr(run.saver, "offer", offer)
    run.state.optimizer.register_step_post_hook(minute_passes)
    fit(run)
    assert [step for step, at_once in offered if at_once] == [2, 4, 6, 8, 10, 12]
