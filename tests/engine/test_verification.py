"""An engine is trusted only where it does what the eager step does, and its trial leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.fixed_shape import FixedShapeEngine
from bigmodel.engine.functional_step import FunctionalStep, StepInputs
from bigmodel.engine.step import Step
from bigmodel.engine.verification import state_restored, verify
from tests.engine.steps import begun, copies_of, make_batch, make_step
from tests.models.cases import build, spec

IMAGES = spec("image")


Alter = Callable[[FunctionalStep, Tensor], None]


class Altered(FixedShapeEngine):
    """Does the step, and then something else with its metrics and tensors."""

    def __init__(self, step: Step, example: Batch, alter: Alter) -> None:
        super().__init__(step, example)
        self._function, self._alter = FunctionalStep(step), alter

    def run_step(self, inputs: StepInputs) -> Tensor:
        metrics = self._function(self._function.tensors, inputs)
        self._alter(self._function, metrics)
        return metrics


def make() -> tuple[Step, Batch]:
    model = build("cnn", IMAGES, channels=[4], dropout=0.4)
    return begun(make_step(model, IMAGES, ema=0.9), IMAGES), make_batch(IMAGES)


def fault_of(alter: Alter) -> str | None:
    step, batch = make()
    return verify(Altered(step, batch, alter), batch, FunctionalStep(step)).fault


def add(metric: int, share: float) -> Alter:
    def alter(_: FunctionalStep, metrics: Tensor) -> None:
        metrics[metric] *= 1 + share

    return alter


def test_what_does_the_same_is_trusted() -> None:
    """With dropout: both have drawn the same random numbers."""
    assert fault_of(lambda *_: None) is None
    assert fault_of(add(0, 1e-5)) is None


@pytest.mark.parametrize(("metric", "name"), [(0, "loss"), (1, "weight"), (3, "norm")])
def test_other_metrics_are_a_fault_in_words(metric: int, name: str) -> None:
    fault = fault_of(add(metric, 0.01))
    assert fault is not None
    assert fault.startswith(f"{name} ")
    assert " instead of " in fault


def test_an_update_that_is_left_out_is_a_fault() -> None:
    def undo(function: FunctionalStep, _: Tensor) -> None:
        for name, weight in function.tensors.weights.items():
            weight.copy_(before[name])

    step, batch = make()
    before = copies_of(FunctionalStep(step).tensors).weights
    fault = verify(Altered(step, batch, undo), batch, FunctionalStep(step)).fault
    assert fault == "an update that is 1 of its size off"


def test_a_weight_that_is_no_number_is_a_fault() -> None:
    def spoil(function: FunctionalStep, _: Tensor) -> None:
        next(iter(function.tensors.weights.values())).view(-1)[0] = torch.nan

    assert fault_of(spoil) is not None


def test_metrics_that_are_no_numbers_are_a_fault() -> None:
    assert fault_of(add(0, torch.nan)) is not None
    assert fault_of(add(3, torch.nan)) is not None


def test_a_bad_batch_tells_nothing_against_an_engine() -> None:
    step, batch = make()
    batch.inputs[0, 0, 0, 0] = torch.nan
    assert verify(Altered(step, batch, lambda *_: None), batch, FunctionalStep(step)).fault is None


def state_of(step: Step) -> list[Tensor]:
    assert step.ema is not None
    optimizer = [value for state in step.optimizer.state.values() for value in state.values()]
    metrics = list(step.metrics.state_dict().values())
    return [
        value.clone()
        for value in (
            *step.model.state_dict().values(),
            *optimizer,
            *step.ema.weights.values(),
            *metrics,
            torch.tensor(step.ema.updates),
            torch.get_rng_state(),
        )
    ]


@pytest.mark.parametrize("by", ["judging", "failing"])
def test_everything_is_as_it_was_afterwards(by: str) -> None:
    step, batch = make()
    before, groups = state_of(step), [dict(group) for group in step.optimizer.param_groups]
    engine = Altered(step, batch, lambda *_: None)
    if by == "judging":
        assert verify(engine, batch, FunctionalStep(step)).seconds > 0
    else:
        with suppress(RuntimeError), state_restored(step, FunctionalStep(step)):
            step(batch)
            raise RuntimeError
        step.discard_step_metrics()
    assert all(map(torch.equal, before, state_of(step)))
    assert groups == [dict(group) for group in step.optimizer.param_groups]
    assert not step.drain()
