"""The step iterator: what it does between two yields, and what it says is due."""

from pathlib import Path
from typing import Any

import pytest

from bigmodel.training.plan import EVERYTHING, OUT_OF_TIME, Due
from bigmodel.training.profiler import Profiler
from bigmodel.training.run import Run
from bigmodel.training.steps import steps
from tests.small_runs import STEPS_PER_EPOCH, built

QUIET = {"trainer.log_every": 9}


def taken(run: Run, epoch: int) -> list[tuple[int, Due | None]]:
    found = []
    for done, due in steps(run, epoch, Profiler()):
        run.state.progress.step += done
        found.append((done, due))
        if due is not None and due.scheduled:
            run.state.progress.last_completed_step = run.state.progress.step
            run.state.progress.out_of_time = due.out_of_time
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run, _ = built(tmp_path, QUIET)
    monkeypatch.setattr(run.watch, "tick", lambda: False)
    return run


def test_an_epoch_s_steps_end_with_what_is_due(run: Run) -> None:
    evaluation = Due(scheduled=True, evaluate=True, record=True, save=True)
    assert taken(run, 0) == [(1, None)] * (STEPS_PER_EPOCH - 1) + [(1, evaluation)]
    assert taken(run, 1) == [(1, None)] * (STEPS_PER_EPOCH - 1) + [(1, EVERYTHING)]
    assert run.over
    assert taken(run, 2) == []


def test_an_evaluation_that_was_interrupted_comes_first(run: Run) -> None:
    run.state.progress.step = STEPS_PER_EPOCH
    found = taken(run, 1)
    assert found[0] == (0, Due(scheduled=True, evaluate=True, record=True, save=True))
    assert sum(done for done, _ in found) == STEPS_PER_EPOCH


def test_a_step_that_is_left_out_is_counted_after_a_drain(run: Run) -> None:
    run.state.progress.skipped_steps = [3]
    updates: list[Any] = []
    run.state.optimizer.register_step_post_hook(lambda *_: updates.append(1))
    assert taken(run, 0)[:4] == [(1, None), (1, None), (0, Due()), (1, None)]
    assert len(updates) == STEPS_PER_EPOCH - 1


def test_a_signal_to_save_is_due_at_once(run: Run) -> None:
    iterator = steps(run, 0, Profiler())
    run.state.progress.step += next(iterator)[0]
    run.signals.pending = True
    assert next(iterator) == (0, Due(save=True, save_now=True))
    assert next(iterator) == (1, None)
    assert not run.signals.pending


def test_a_run_out_of_time_ends_after_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = built(tmp_path, QUIET | {"trainer.max_minutes": 1})
    monkeypatch.setattr(run.watch, "tick", lambda: True)
    run.state.progress.seconds = 60.0

    assert taken(run, 0) == [(1, OUT_OF_TIME)]
