"""Profiling a few steps: which, that nothing changes by it, and what is left of it."""

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.data.base import Batch
from bigmodel.engine.base import Engine
from bigmodel.engine.fixed_shape import FixedShapeEngine
from bigmodel.engine.functional_step import StepInputs
from bigmodel.engine.step import unmarked
from bigmodel.errors import NonFiniteError
from bigmodel.optim.schedulers import apply
from bigmodel.training.loop import fit
from bigmodel.training.plan import Plan, TrainerConfig
from bigmodel.training.profiler import LEAST, STEPS, WARM_UP, window
from bigmodel.training.run import Run
from tests.small_runs import STEPS_PER_EPOCH, Recorder, built


def plan(steps_per_epoch: int, **settings: Any) -> Plan:
    return Plan.of(TrainerConfig(**settings), steps_per_epoch)


@pytest.mark.parametrize(
    ("steps_per_epoch", "settings", "done", "chosen"),
    [
        (1000, {}, 0, range(WARM_UP, WARM_UP + STEPS)),
        (1000, {}, 400, range(400 + WARM_UP, 400 + WARM_UP + STEPS)),
        (1000, {}, 975, range(1000, 1000 + STEPS)),  # rather than across the evaluation
        (23, {}, 0, range(23, 23 + STEPS)),  # from the beginning of an epoch
        (8, {"epochs": 30}, 0, range(24, 31)),  # an epoch less its last step
        (8, {}, 0, range(32, 47)),  # two epochs to an evaluation, as in longer runs
        (3, {"epochs": 30}, 0, range(WARM_UP, WARM_UP + STEPS)),  # evaluations everywhere
        (1000, {"max_steps": 12}, 0, range(6, 11)),
        (1000, {"max_steps": LEAST}, 0, range(2, 4)),
        (1000, {"max_steps": LEAST - 1}, 0, None),
        (1000, {"max_steps": 500}, 500, None),
    ],
)
def test_which_steps(
    steps_per_epoch: int, settings: dict[str, Any], done: int, chosen: range | None
) -> None:
    assert window(plan(steps_per_epoch, **settings), done) == chosen


def profiled_run(folder: Path, settings: dict[str, Any]) -> tuple[Run, Recorder]:
    run, told = built(folder, {"profile": True, "trainer.max_steps": 24} | settings)
    assert run.profiled
    fit(run)
    return run, told


def trace_of(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "profile" / "trace.json.gz", "rt", encoding="utf-8") as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return events


def test_a_trace_is_written_and_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run, told = profiled_run(tmp_path, {})
    marks = Counter(event["name"] for event in trace_of(tmp_path) if event.get("ph") == "X")
    profiled, written = told.messages
    assert profiled.startswith("Profile of steps 13 to 23, ")
    assert marks["forward"] == marks["backward"] == marks["optimizer"] == 11
    assert sum(marks[f"ProfilerStep#{step}"] for step in range(12, 23)) == 11
    assert marks["data"] == 2 * (1 + 1)  # of two epochs: that the one before has no more, and a block
    for phase in ("data", "forward", "backward", "optimizer", "waiting", "other"):
        assert f"\n  {phase} " in profiled
    assert "aten::" in profiled
    assert written.startswith("Trace: ")
    assert str(tmp_path / "profile" / "trace.json.gz") in written
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["trace.json.gz"]
    assert run.step.phase is unmarked
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "settings",
    [{"trainer.clip_norm": 0.5, "trainer.accumulate": 2}, {"trainer.epochs": 5}],
    ids=["micro batches", "epochs"],
)
def test_nothing_changes_by_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    runs = {}
    for profiled in (False, True):
        run, told = built(tmp_path / str(profiled), settings | {"profile": profiled})
        fit(run)
        records = [{k: v for k, v in r.items() if k != "samples_per_second"} for r in told.records]
        runs[profiled] = (records, run.state.model.state_dict(), run.state.progress.step)
    (plain, weights, steps), (with_profile, theirs, also) = runs[False], runs[True]
    assert steps == also
    assert plain == with_profile
    assert all(torch.equal(value, theirs[name]) for name, value in weights.items())
    assert (tmp_path / "True" / "profile").is_dir()
    assert not (tmp_path / "False" / "profile").exists()


class OneProgram(FixedShapeEngine):
    """Steps that are one program each, which does nothing."""

    def run_step(self, inputs: StepInputs) -> torch.Tensor:  # noqa: ARG002
        return torch.tensor([1.0, 1.0, 0.0, 1.0])


def test_a_step_without_phases(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"profile": True, "trainer.max_steps": 24, "data.batch_size": 16})
    apply(run.step.optimizer, 1.0)
    run = replace(run, engine=OneProgram(run.step, next(run.train.epoch(0))))
    fit(run)
    assert "\n  data " in told.messages[0]
    assert "\n  compiled step " in told.messages[0]
    assert "\n  forward " not in told.messages[0]


def test_a_run_that_is_too_short_says_so(tmp_path: Path) -> None:
    _, told = profiled_run(tmp_path, {"trainer.max_steps": LEAST - 1})
    assert told.messages == [f"profile=true: fewer than {LEAST} steps are left, too few to profile."]
    assert not (tmp_path / "profile").exists()


def test_a_run_that_stops_early_before_the_window(tmp_path: Path) -> None:
    stopping = {"trainer.early_stopping": {"patience": 1, "min_delta": 100.0}}
    run, told = profiled_run(tmp_path, stopping | {"trainer.max_steps": 40})
    assert run.state.progress.step == 2 * STEPS_PER_EPOCH
    assert told.messages[1:] == ["profile=true: training ended before the steps to profile."]
    assert run.step.phase is unmarked


def test_a_run_that_stops_early_within_the_window(tmp_path: Path) -> None:
    stopping = {"trainer.early_stopping": {"patience": 2, "min_delta": 100.0}}
    run, told = profiled_run(tmp_path, stopping)
    assert run.state.progress.step == 3 * STEPS_PER_EPOCH
    assert told.messages[1].startswith("Profile of steps 13 to 18, ")
    assert sum(event["name"] == "optimizer" for event in trace_of(tmp_path)) == 6


def test_an_error_within_the_window_leaves_nothing(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"profile": True, "trainer.max_steps": 24})
    batches, seen = run.train.blocks, Counter[str]()

    def broken(*args: Any, **options: Any) -> Any:
        for block in batches(*args, **options):
            for batch in block:
                seen["batches"] += 1
                if seen["batches"] == 16:
                    batch.inputs.fill_(float("nan"))
            yield block

    run.train.blocks = broken  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError):
        fit(run)
    assert "profile=true: no trace was written, as training was interrupted." in told.messages
    assert not (tmp_path / "profile").exists()
    assert run.step.phase is unmarked
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        pass  # the profiler is free again: there can be only one


def test_a_disk_that_takes_nothing_is_no_end(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("in the way")
    run, told = profiled_run(tmp_path, {})
    assert run.summary.status == "finished"
    assert any(text.startswith("profile=true: no trace was written: ") for text in told.messages)


def test_time_without_the_profiler_stands_beside(tmp_path: Path) -> None:
    _, told = profiled_run(tmp_path, {"trainer.max_steps": 60})
    assert "ms without the profiler):" in told.messages[0]


class Many(Engine):
    """Does up to four batches in a call, and keeps from which step on it did how many."""

    steps_per_call = 4

    def __init__(self, run: Run) -> None:
        super().__init__(run.step)
        self.run, self.calls = run, dict[int, int]()

    def __call__(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        self.calls[self.run.state.progress.step] = len(batches)
        return sum(
            super(Many, self).__call__([batch], [factor], measure)
            for batch, factor in zip(batches, factors, strict=True)
        )


def test_calls_end_where_the_window_begins_and_ends_and_are_long_again_afterwards(
    tmp_path: Path,
) -> None:
    calls = {}
    for profiled in (False, True):
        settings = {"profile": profiled, "trainer.max_steps": 60, "trainer.epochs": 10}
        run, told = built(tmp_path / str(profiled), settings)
        many = Many(run)
        run = replace(run, engine=many)
        fit(run)
        calls[profiled] = many.calls
    assert told.messages[0].startswith("Profile of steps 25 to 29, ")
    plain, profiled_calls = calls[False], calls[True]
    assert (plain[28], profiled_calls[28], profiled_calls[29]) == (
        2,
        1,
        1,
    )  # the window ends after step 29
    assert {step: size for step, size in profiled_calls.items() if step >= 30} == {
        step: size for step, size in plain.items() if step >= 30
    }
    assert plain[30] == 4
