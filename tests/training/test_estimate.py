"""What a run is expected to cost."""

from pathlib import Path

import pytest

from bigmodel.training import estimate as module
from bigmodel.training.estimate import estimate
from tests.small_runs import STEPS_PER_EPOCH, built


def test_a_run_s_costs_come_from_its_plan_and_its_state(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"trainer.epochs": 5})
    weights = 4 * sum(p.numel() for p in run.state.model.parameters())

    cost = estimate(run)

    assert cost.steps == 5 * STEPS_PER_EPOCH
    assert cost.parameters == weights // 4
    assert cost.checkpoint >= 3 * weights  # AdamW keeps two more values for each
    assert cost.memory > weights
    assert not list(tmp_path.iterdir())


def test_time_is_that_of_all_steps_and_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(10_000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(seconds)))
    run, _ = built(tmp_path, {"trainer.epochs": 5})

    cost = estimate(run)

    evaluations = 5  # of 16 samples, which are one batch
    assert cost.seconds == 5 * STEPS_PER_EPOCH + evaluations
