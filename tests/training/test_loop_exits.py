"""How a run ends: every exit is told, and a model that has diverged is never written."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing import checkpoint
from bigmodel.errors import CheckpointError, NonFiniteError
from bigmodel.runtime.signals import Pruned, Stopped
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import built


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("step", "interval"), [(8, 0.0), (12, 0.0), (8, 1e9)])
def test_a_loss_that_is_not_finite_ends_the_run(
    tmp_path: Path, value: float, step: int, interval: float
) -> None:
    """What was due to be saved before, and held back, is saved."""
    settings = {
        "scheduler": "step",
        "scheduler.step_size": 1,
        "scheduler.gamma": 0.5,
        "optimizer.lr": 1e-3,
        "trainer.checkpoint.interval": interval,
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
    with pytest.raises(
        NonFiniteError, match=f"Step {step} left NaN or infinite values in model head.weight"
    ):
        fit(run)
    written = sorted(tmp_path.rglob("manifest.json"))
    assert (written != []) == (step == 12)
    for manifest in written:
        groups, facts = checkpoint.load(manifest.parent)
        assert facts["progress"]["step"] == 6
        assert all(bool(weight.isfinite().all()) for weight in groups["model"].values())
    assert status(run)["status"] == "failed"


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


@pytest.mark.parametrize("save_first", [False, True], ids=["stop", "save and stop"])
def test_a_plan_that_now_ends_where_a_run_was_stopped_is_evaluated_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_first: bool
) -> None:
    run, _ = built(tmp_path)
    monkeypatch.setattr(run.watch, "tick", lambda: True)  # the progress bar is drawn after each step

    def check() -> None:
        if run.state.progress.step == 2:
            raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(run.signals, "check", check)
    for step in (1, 2) if save_first else (2,):
        after_step(run, step, lambda: setattr(run.signals, "pending", True))
    with pytest.raises(Stopped):
        fit(run)
    assert run.state.progress.step == 2
    resumed, recorder = built(tmp_path, {"trainer.max_steps": 2})
    summary = fit(resume_run(resumed, changed=["trainer.max_steps"]))
    assert [record["step"] for record in recorder.records] == [2]
    assert summary.best == summary.final == recorder.records[0]
    assert "val/loss" in summary.final


def test_a_run_ends_in_time_with_all_that_is_due_and_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = built(tmp_path / "whole")
    fit(whole)
    run, recorder = built(tmp_path / "run", {"trainer.max_minutes": 1})
    monkeypatch.setattr(run.watch, "tick", lambda: True)
    after_step(run, 4, lambda: setattr(run.state.progress, "seconds", 60.0))

    summary = fit(run)

    assert (summary.status, summary.steps) == ("finished", 4)
    assert "val/loss" in recorder.records[-1]
    assert any("trainer.max_minutes" in message for message in recorder.messages)
    same, _ = built(tmp_path / "run", {"trainer.max_minutes": 1})
    assert resume_run(same).over
    resumed, _ = built(tmp_path / "run", {"trainer.max_minutes": 100})
    again = fit(resume_run(resumed, changed=["trainer.max_minutes"]))
    assert again.steps == whole.plan.steps
    assert again.final["val/loss"] == pytest.approx(whole.summary.final["val/loss"], rel=1e-6)


def test_a_pruned_run_is_saved_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, told = built(tmp_path)
    record = told.record

    def judge(*figures: Any) -> None:
        record(*figures)
        run.signals.prune("was worse than others")

    monkeypatch.setattr(told, "record", judge)
    with pytest.raises(Pruned):
        fit(run)
    on_disk = status(run)
    assert (on_disk["status"], on_disk["error"]) == ("pruned", "was worse than others")
    assert (on_disk["steps"], on_disk["test"]) == (6, {})
    assert on_disk["best"] == told.records[-1]
    assert told.calls[-2:] == ["finish", "close"]
    resumed, recorder = built(tmp_path)
    summary = fit(resume_run(resumed))
    assert (summary.status, summary.steps, len(recorder.records)) == ("finished", 12, 1)
