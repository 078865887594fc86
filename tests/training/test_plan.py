import math
from typing import Any

import pytest

from bigmodel.errors import ConfigError
from bigmodel.training.plan import (
    CheckpointConfig,
    EarlyStoppingConfig,
    LimitConfig,
    Monitored,
    Plan,
    TrainerConfig,
    monitored,
)


def run_through(plan: Plan) -> dict[int, Any]:
    """What is due after each step, found by asking only at the events that the plan announces."""
    step, due = 0, {}
    while step < plan.steps:
        step = plan.next_event(step)
        due[step] = plan.due(step)
    return due


def test_cadences_in_epochs_become_steps() -> None:
    plan = Plan.of(TrainerConfig(epochs=5, log_every=2, eval_every=1), steps_per_epoch=7)
    due = run_through(plan)
    assert list(due) == [7, 14, 21, 28, 35]
    assert [step for step, what in due.items() if what.log] == [14, 28, 35]
    assert all(what.evaluate and what.record and what.save for what in due.values())


def test_cadences_in_steps() -> None:
    config = TrainerConfig(
        epochs=2,
        record_every_steps=1,
        eval_every_steps=3,
        log_every_steps=4,
        checkpoint=CheckpointConfig(every_steps=5),
    )
    due = run_through(Plan.of(config, steps_per_epoch=5))
    assert list(due) == list(range(1, 11))
    assert [s for s, d in due.items() if d.evaluate] == [3, 6, 9, 10]
    assert [s for s, d in due.items() if d.log] == [4, 8, 10]
    assert [s for s, d in due.items() if d.save] == [5, 10]


@pytest.mark.parametrize(("max_steps", "epochs"), [(3, 1), (10, 2), (23, 5)])
def test_max_steps_rules_over_epochs(max_steps: int, epochs: int) -> None:
    plan = Plan.of(TrainerConfig(epochs=2, max_steps=max_steps), steps_per_epoch=5)
    assert (plan.steps, plan.epochs) == (max_steps, epochs)


def test_a_run_is_as_long_as_its_data_asks_for() -> None:
    small = Plan.of(TrainerConfig(), steps_per_epoch=8)
    assert (small.epochs, small.steps, small.auto) == (125, 1000, "auto: 1,000 steps")
    assert Plan.of(TrainerConfig(), steps_per_epoch=3).steps == 1002, "whole epochs"
    large = Plan.of(TrainerConfig(), steps_per_epoch=34)
    assert (large.epochs, large.auto) == (30, "auto")
    assert Plan.of(TrainerConfig(max_steps=7), steps_per_epoch=8).steps == 7
    given = Plan.of(TrainerConfig(epochs=2), steps_per_epoch=8)
    assert (given.epochs, given.auto) == (2, "")
    texts = [Plan.of(TrainerConfig(), steps, usual_epochs=10).epochs for steps in (8, 99, 101)]
    assert texts == [125, 11, 10]
    tuned = [Plan.of(TrainerConfig(), steps, fine_tuning=True).epochs for steps in (5, 40, 500)]
    assert tuned == [30, 8, 4], "300 steps, but 4 to 30 epochs"
    quick = Plan.of(TrainerConfig(limit=LimitConfig(train=2)), steps_per_epoch=2)
    assert quick.epochs == 30, "less data than there is asks for nothing"


@pytest.mark.parametrize("epochs", ["auto", 1000])
def test_epochs_of_few_steps_are_evaluated_several_at_a_time(epochs: Any) -> None:
    plan = Plan.of(TrainerConfig(epochs=epochs), steps_per_epoch=1)
    due = run_through(plan)
    assert plan.steps == 1000
    assert list(due) == list(range(10, 1001, 10))
    assert all(what.evaluate and what.record and what.save for what in due.values())
    assert [step for step, what in due.items() if what.log] == list(range(100, 1001, 100))
    typed = TrainerConfig(epochs=epochs, eval_every=1, checkpoint=CheckpointConfig(every=50))
    due = run_through(Plan.of(typed, steps_per_epoch=1))
    assert sum(what.evaluate for what in due.values()) == 1000
    assert sum(what.save for what in due.values()) == 20


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(100, 1), (5, 2), (1000, 10), ("auto", 100)])
def test_other_epochs_are_evaluated_one_by_one(epochs: Any, steps_per_epoch: int) -> None:
    plan = Plan.of(TrainerConfig(epochs=epochs), steps_per_epoch)
    assert plan.evaluate_every == plan.record_every == plan.save_every == steps_per_epoch
    assert plan.log_every == 10 * steps_per_epoch


@pytest.mark.parametrize(
    ("settings", "steps_per_epoch", "patience"),
    [
        ({}, 1, 50),
        ({"eval_every": 100}, 1, 5),
        ({}, 23, 22),
        ({}, 500, None),
        ({"epochs": 44}, 23, None),
        ({"max_steps": 1000}, 1, None),
        ({"early_stopping": EarlyStoppingConfig(patience=3)}, 500, 3),
        ({"early_stopping": EarlyStoppingConfig(patience=None)}, 1, None),
    ],
)
def test_patience_goes_by_the_length(settings: Any, steps_per_epoch: int, patience: int | None) -> None:
    assert Plan.of(TrainerConfig(**settings), steps_per_epoch).patience == patience


def test_no_event_is_missed() -> None:
    config = TrainerConfig(
        epochs=4, log_every=3, eval_every=2, checkpoint=CheckpointConfig(every_steps=7)
    )
    plan = Plan.of(config, steps_per_epoch=6)
    due = run_through(plan)
    for step in range(1, plan.steps + 1):
        now = plan.due(step)
        assert (step in due) == (now.evaluate or now.record or now.log or now.save)


def test_monitor() -> None:
    known = {"val/loss": "min", "val/accuracy": "max"}
    assert monitored("auto", "auto", known, "val/accuracy", "k") == Monitored("val/accuracy", "max")
    assert monitored("val/loss", "auto", known, "val/accuracy", "k").mode == "min"
    assert monitored("val/loss", "max", known, "val/accuracy", "k").mode == "max"
    with pytest.raises(ConfigError, match=r"k=val/acuracy: .*Did you mean 'val/accuracy'\? .*val/loss"):
        monitored("val/acuracy", "auto", known, "val/loss", "k")


@pytest.mark.parametrize(
    ("mode", "value", "than", "by", "expected"),
    [
        ("max", 0.9, None, 0.0, True),
        ("max", 0.9, 0.8, 0.0, True),
        ("max", 0.9, 0.8, 0.2, False),
        ("min", 0.9, 0.8, 0.0, False),
        ("min", 0.7, 0.8, 0.0, True),
        ("min", math.nan, None, 0.0, False),
    ],
)
def test_better(mode: str, value: float, than: float | None, by: float, expected: bool) -> None:
    assert Monitored("m", mode).better(value, than, by) is expected


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("than", [None, 0.5])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_beats_nothing(mode: str, than: float | None, value: float) -> None:
    assert not Monitored("val/loss", mode).better(value, than)
