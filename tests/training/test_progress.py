"""How far a run has come: sums that do not depend on when they are drained, and names on the disk."""

import math
from pathlib import Path

import numpy as np
import pytest

from bigmodel.engine.step_metrics import StepMetricsList
from bigmodel.training import validation
from bigmodel.training.progress import Progress
from tests.small_runs import built

STEPS = StepMetricsList(
    np.array([0.1, math.nan, 0.3, 0.7]),
    np.array([3.0, 3.0, 2.0, 1.0]),
    np.array([True, True, False, True]),
)


def added(progress: Progress, drained: StepMetricsList) -> list[tuple[int, int, int]]:
    """Adds steps, skips those that are not finite, and returns their numbers and counts."""
    skipped = []
    for step, _ in progress.add_steps(drained):
        progress.count_skipped()
        skipped.append((step, progress.skipped_updates, progress.skipped_in_a_row))
    return skipped


@pytest.mark.parametrize("cut", range(len(STEPS) + 1))
def test_sums_do_not_depend_on_how_often_steps_are_drained(cut: int) -> None:
    once, twice = Progress(step=4), Progress(step=cut)
    skipped = added(once, STEPS)
    parts = added(twice, STEPS[:cut])
    twice.step = 4
    parts += added(twice, STEPS[cut:])
    assert once == twice
    assert skipped == parts == [(2, 1, 1), (3, 2, 2)]
    assert once.skipped_in_a_row == 0
    assert once.mean_loss == (0.1 * 3 + 0.7) / 4


def test_nothing_is_counted_after_the_step_at_which_iteration_stops() -> None:
    progress = Progress(step=4)
    step, metrics = next(progress.add_steps(STEPS))
    assert (step, metrics.weight) == (2, 3)
    assert progress == Progress(step=4, loss_sum=0.1 * 3, loss_weight=3)


def test_a_checkpoint_keeps_the_names_that_it_always_had() -> None:
    stored = Progress(7, 6, bad_evaluations=2, skipped_updates=3, skipped_in_a_row=1, skipped_steps=[5])
    saved = stored.state_dict()
    assert (saved["attended"], saved["waited"], saved["skipped"]) == (6, 2, 3)
    assert (saved["skipped_in_row"], saved["passed_over"]) == (1, [5])
    loaded = Progress(step=99, best_value=0.5)
    loaded.load_state_dict({key: saved[key] for key in ("step", "attended", "waited", "passed_over")})
    assert loaded == Progress(7, 6, bad_evaluations=2, skipped_steps=[5])


def test_a_field_of_another_name_is_refused() -> None:
    with pytest.raises(TypeError, match="unknown"):
        Progress().load_state_dict({"unknown": 1})


def test_an_evaluation_changes_no_progress(tmp_path: Path) -> None:
    settings = {"trainer.early_stopping": {"patience": 1, "min_delta": 9.0}}
    run, _ = built(tmp_path, settings)
    run.state.progress.stop_value = 0.5
    before = run.state.progress.state_dict()
    result = validation.validate(run, show=False)
    assert run.state.progress.state_dict() == before
    assert (result.improved, result.stop, result.bad_evaluations) == (True, True, 1)
    run.state.progress.apply(result)
    assert run.state.progress.stopped_early
    assert run.state.progress.best_value == result.monitored
