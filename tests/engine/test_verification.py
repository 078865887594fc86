"""An engine is trusted only where it does what the eager step does, and its trial leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.fixed_shape import Pieces
from bigmodel.engine.functional_step import Given, Whole
from bigmodel.engine.step import Step
from bigmodel.engine.verification import judged, unchanged
from tests.engine.steps import begun, make_batch, make_step
from tests.models.cases import build, spec

IMAGES = spec("image")


class Altered(Pieces):
    """Does the step, and then something else with its figures and tensors."""

    def __init__(self, step: Step, like: Batch, alter: Callable[[Whole, Tensor], None]) -> None:
        super().__init__(step, like)
        self._whole, self._alter = Whole(step), alter

    def once(self, given: Given) -> Tensor:
        figures = self._whole(self._whole.changed, self._whole.read, given)
        self._alter(self._whole, figures)
        return figures


def make() -> tuple[Step, Batch]:
    model = build("cnn", IMAGES, channels=[4], dropout=0.4)
    return begun(make_step(model, IMAGES, ema=0.9), IMAGES), make_batch(IMAGES)


def verdict_of(alter: Callable[[Whole, Tensor], None]) -> str | None:
    step, batch = make()
    return judged(Altered(step, batch, alter), batch, Whole(step)).fault


def add(figure: int, share: float) -> Callable[[Whole, Tensor], None]:
    def alter(_: Whole, figures: Tensor) -> None:
        figures[figure] *= 1 + share

    return alter


def test_what_does_the_same_is_trusted() -> None:
    """With dropout: both have drawn the same random numbers."""
    assert verdict_of(lambda *_: None) is None
    assert verdict_of(add(0, 1e-5)) is None


@pytest.mark.parametrize(("figure", "name"), [(0, "loss"), (1, "weight"), (3, "norm")])
def test_other_figures_are_a_fault_in_words(figure: int, name: str) -> None:
    fault = verdict_of(add(figure, 0.01))
    assert fault is not None
    assert fault.startswith(f"{name} ")
    assert " instead of " in fault


def test_an_update_that_is_left_out_is_a_fault() -> None:
    def undo(whole: Whole, _: Tensor) -> None:
        for weight, old in zip(whole.weights, before, strict=True):
            weight.copy_(old)

    step, batch = make()
    before = [weight.clone() for weight in Whole(step).weights]
    fault = judged(Altered(step, batch, undo), batch, Whole(step)).fault
    assert fault == "an update that is 1 of its size off"


def test_a_weight_that_is_no_number_is_a_fault() -> None:
    def spoil(whole: Whole, _: Tensor) -> None:
        whole.weights[0].view(-1)[0] = torch.nan

    assert verdict_of(spoil) is not None


def test_figures_that_are_no_numbers_are_a_fault() -> None:
    assert verdict_of(add(0, torch.nan)) is not None
    assert verdict_of(add(3, torch.nan)) is not None


def test_a_bad_batch_tells_nothing_against_an_engine() -> None:
    step, batch = make()
    batch.inputs[0, 0, 0, 0] = torch.nan
    assert judged(Altered(step, batch, lambda *_: None), batch, Whole(step)).fault is None


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
        assert judged(engine, batch, Whole(step)).seconds > 0
    else:
        with suppress(RuntimeError), unchanged(step, Whole(step)):
            step(batch)
            raise RuntimeError
        step.forget()
    assert all(map(torch.equal, before, state_of(step)))
    assert groups == [dict(group) for group in step.optimizer.param_groups]
    assert step.drain() == []
