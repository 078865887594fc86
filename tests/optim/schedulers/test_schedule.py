"""The schedule of a run that goes on: exact where nothing changes, as chosen where it is longer."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as reference

from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing import exact_json
from bigmodel.errors import ConfigError
from bigmodel.optim.schedulers import EXTENSIONS, Schedule
from bigmodel.registry import schedulers
from bigmodel.reporting.base import Record
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import STEPS_PER_EPOCH, Recorder, built

FIRST, LONGER, LONGEST = 24, 60, 90  # steps
every = pytest.mark.parametrize("name", schedulers.names())
every_interval = pytest.mark.parametrize("interval", ["step", "epoch"])


def schedule(name: str, steps: int, **options: Any) -> Schedule:
    if name == "multistep":
        options = {"milestones": [2, 7], **options}
    config = schedulers.parse({"name": name, **options})
    return Schedule(config, steps, STEPS_PER_EPOCH)


def gone_on(before: Schedule, name: str, steps: int, at: int, **options: Any) -> Schedule:
    """By way of the file: what JSON does not hold is not there."""
    after = schedule(name, steps, **options)
    after.load_state_dict(exact_json.loads(exact_json.dumps(before.state_dict())), at)
    return after


def rates(of: Schedule, first: int, last: int) -> list[float]:
    return [of.factor(step) for step in range(first, last)]


@every
@every_interval
@pytest.mark.parametrize("extend", EXTENSIONS)
def test_a_run_as_long_as_planned_goes_on_as_it_was(name: str, interval: str, extend: str) -> None:
    options = {"interval": interval, "warmup": 2, "extend": extend}
    whole = schedule(name, FIRST, **options)
    plain = schedulers.build(
        schedulers.parse(whole._config.model_dump()), FIRST if interval == "step" else 4
    )
    per = 1 if interval == "step" else STEPS_PER_EPOCH
    assert rates(whole, 0, FIRST) == [plain.factor(step // per) for step in range(FIRST)]
    for at in (0, 1, 7, 23, 24):
        again = gone_on(whole, name, FIRST, at, **options)
        assert again.change is None
        assert rates(again, 0, FIRST + 3) == rates(whole, 0, FIRST + 3)


@every
@every_interval
@pytest.mark.parametrize("at", [13, FIRST])
@pytest.mark.parametrize("warmup", [0, 2])
def test_a_longer_run_has_the_schedule_that_was_chosen(
    name: str, interval: str, at: int, warmup: int
) -> None:
    options = {"interval": interval, "warmup": warmup}
    first, anew = schedule(name, FIRST, **options), schedule(name, LONGER, **options)
    assert rates(gone_on(first, name, LONGER, at, **options), at, LONGER) == rates(anew, at, LONGER)
    held = gone_on(first, name, LONGER, at, **options, extend="hold")
    last = first.factor(FIRST - 1)
    assert rates(held, at, FIRST) == rates(first, at, FIRST)
    assert set(rates(held, FIRST, LONGER + 5)) == {last}
    again = gone_on(first, name, LONGER, at, **options, extend="again")
    begin = at if interval == "step" else at // STEPS_PER_EPOCH * STEPS_PER_EPOCH
    once_more = schedule(name, LONGER - begin, **options)
    assert rates(again, at, LONGER) == rates(once_more, at - begin, LONGER - begin)
    for longer in (held, again):
        assert longer.change is not None
        assert longer.change.planned == FIRST
        assert longer.change.before == first.factor(min(at, FIRST - 1))
        assert longer.change.after == longer.factor(at)


@every
@every_interval
@pytest.mark.parametrize("second", EXTENSIONS)
@pytest.mark.parametrize("then", EXTENSIONS)
def test_a_run_that_was_extended_goes_on_to_the_bit_and_may_be_extended_again(
    name: str, interval: str, second: str, then: str
) -> None:
    options = {"interval": interval, "warmup": 1}
    first = schedule(name, FIRST, **options)
    longer = gone_on(first, name, LONGER, 20, **options, extend=second)
    for at in (21, 24, 30, 59):
        same = gone_on(longer, name, LONGER, at, **options, extend=then)
        assert same.change is None, "it is as long as it was"
        assert rates(same, at, LONGER) == rates(longer, at, LONGER)
    longest = gone_on(longer, name, LONGEST, 40, **options, extend=then)
    assert longest.change is not None
    if then == "hold":
        assert rates(longest, 40, LONGER) == rates(longer, 40, LONGER)
        assert len(set(rates(longest, LONGER - 1, LONGEST))) == 1
    assert all(math.isfinite(rate) for rate in rates(longest, 40, LONGEST + 5))


def test_a_shorter_run_holds_on_to_its_schedule_or_is_squeezed() -> None:
    first = schedule("linear", FIRST)
    assert gone_on(first, "linear", 12, 6, extend="hold").factor(11) == first.factor(11)
    assert gone_on(first, "linear", 12, 6).factor(11) == schedule("linear", 12).factor(11)
    assert gone_on(first, "linear", 12, 6, extend="again").factor(6) == 1.0


@every_interval
def test_plateau_waits_for_the_end_of_its_warm_up_as_torchs_that_begins_there(interval: str) -> None:
    warmup, patience = (12 if interval == "step" else 2), 1
    ours = schedule(
        "plateau", LONGEST, interval=interval, warmup=warmup, patience=patience, factor=0.5, threshold=0
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = reference.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=0)
    # One that is better than all that follow, in the warm-up: torch's has not heard of it.
    values = {step: 0.1 if step < 12 else 1.0 for step in range(3, LONGEST, 3)}
    for step, value in values.items():
        ours.observe(value, "min", step)
        if step >= 12:
            torchs.step(value)
            assert ours.factor(step) == optimizer.param_groups[0]["lr"], step
    assert schedule("plateau", LONGEST, interval=interval, warmup=warmup).factor(12) == 1.0


def test_plateau_begun_again_has_forgotten_and_one_that_is_held_hears_no_more() -> None:
    options = {"patience": 0, "factor": 0.5}
    first = schedule("plateau", FIRST, **options)
    for step in (6, 12, 18):
        first.observe(1.0, "min", step)
    assert first.factor(18) == 0.25
    assert gone_on(first, "plateau", LONGER, 18, **options).factor(18) == 0.25
    again = gone_on(first, "plateau", LONGER, 18, **options, extend="again")
    again.observe(5.0, "min", 24)
    assert again.factor(24) == 1.0, "what was best before is no bound"
    held = gone_on(first, "plateau", LONGER, 18, **options, extend="hold")
    for step in (24, 30, 36):
        held.observe(1.0, "min", step)
    assert held.factor(36) == 0.125, "the last one that counts is that of its own end"


LONG = {"scheduler": "one_cycle", "trainer.epochs": 2}


def finished(folder: Path, settings: dict[str, Any]) -> tuple[Run, Recorder]:
    run, told = built(folder, settings)
    fit(run)
    return run, told


def longer(folder: Path, settings: dict[str, Any]) -> tuple[Run, Recorder]:
    run, told = built(folder, settings)
    run = resume_run(run)
    fit(run)
    return run, told


@pytest.mark.parametrize("extend", EXTENSIONS)
def test_one_line_tells_the_old_rate_and_the_new_one(tmp_path: Path, extend: str) -> None:
    run, _ = finished(tmp_path, LONG | {"optimizer.lr": 0.01})
    last = run.state.optimizer.param_groups[0]["lr"]
    settings = LONG | {"trainer.epochs": 4, "optimizer.lr": 0.01, "scheduler.extend": extend}
    again, told = longer(tmp_path, settings)
    anew, anew_short = schedule("one_cycle", 24), schedule("one_cycle", 12)
    rows = dict(again.info.rows)
    assert rows["Schedule"].startswith(
        f"24 steps instead of 12: at step 12 the learning rate goes from {last:.3g} to"
        f" {0.01 * again.state.schedule.factor(12):.3g} by scheduler.extend={extend}"
    )
    rate = {"stretch": 0.01 * anew.factor(17), "hold": last, "again": 0.01 * anew_short.factor(5)}
    assert told.records[0]["lr"] == pytest.approx(rate[extend])
    same, _ = longer(tmp_path, settings)
    assert "Schedule" not in dict(same.info.rows)


@pytest.mark.parametrize("extend", EXTENSIONS)
def test_a_run_that_was_extended_and_stopped_equals_one_that_was_not_stopped(
    tmp_path: Path, extend: str
) -> None:
    settings = LONG | {"trainer.epochs": 5, "scheduler.extend": extend}
    ends = []
    for name in ("whole", "stopped"):
        finished(tmp_path / name, LONG)
        run, _ = built(tmp_path / name, settings)
        run = resume_run(run)
        if name == "stopped":
            run.sinks.record = stopping  # type: ignore[method-assign]
            with pytest.raises(KeyboardInterrupt):
                fit(run)
            run, _ = built(tmp_path / name, settings)
            run = resume_run(run)
            assert run.state.schedule.change is None
        fit(run)
        ends.append(run.state.save()[0])
    for group, tensors in ends[0].items():
        assert all(torch.equal(value, ends[1][group][key]) for key, value in tensors.items()), group


def stopping(record: Record, best: Record) -> None:  # noqa: ARG001
    if record["step"] == 4 * STEPS_PER_EPOCH:  # the epoch before has been saved
        raise KeyboardInterrupt


def test_a_checkpoint_of_an_earlier_version_knows_its_length_by_its_settings(tmp_path: Path) -> None:
    from bigmodel.checkpointing.checkpoint import load_newest

    finished(tmp_path, LONG)
    newest = load_newest(tmp_path / "checkpoints")
    del newest.facts["scheduler"]["span"]
    run, _ = built(tmp_path, LONG | {"trainer.epochs": 4, "scheduler.extend": "again"})
    resume_run(run, newest)
    change = run.state.schedule.change
    assert change is not None
    assert change.planned == 12
    assert change.after == schedule("one_cycle", 12).factor(0)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        ({"trainer.epochs": 1}, "epochs=1: the run is already past 1 epoch: it has done 2. "),
        (
            {"trainer.max_steps": 5},
            "max_steps=5: the run is already past 5 steps: it has done 12. ",
        ),
    ],
    ids=str,
)
def test_a_run_that_is_to_be_shorter_than_it_is_tells_how_far_it_has_come(
    tmp_path: Path, length: dict[str, int], words: str
) -> None:
    finished(tmp_path, LONG)
    run, _ = built(tmp_path, LONG | length)
    with pytest.raises(ConfigError) as caught:
        resume_run(run)
    assert words in str(caught.value)
    assert "To continue, raise it, for example to trainer." in str(caught.value)
