"""Operations mean what they mean to torch, at the edges of their domains and of memory, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, inf, nan

from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.functional_step import StepInputs, StepTensors
from bigmodel.engine.native import compiler
from tests.engine.steps import begun, make_batch, needs_compiler, small_step
from tests.models.cases import spec

pytestmark = needs_compiler

ODD = (0.0, 0.5, -0.5, 1.0, -2.0, nan, inf, -inf, 3e5, -1e-30)


class Function:
    """Stands in for a `FunctionalStep`: what a function does to tensors in place."""

    def __init__(self, does: Callable[..., Any], *tensors: Tensor) -> None:
        self._does = does
        self.tensors = StepTensors({}, {str(i): t for i, t in enumerate(tensors)}, {}, {}, {}, {})

    def __call__(self, tensors: StepTensors, inputs: StepInputs) -> Tensor:  # noqa: ARG002
        with torch.no_grad():
            self._does(*tensors.buffers.values())
            return torch.arange(4.0)


Case = tuple[Callable[..., Any], tuple[Tensor, ...]]


@pytest.fixture
def assert_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Checks that all cases, compiled as one step, leave in their tensors what torch leaves."""

    def check(*cases: Case) -> None:
        def together(*tensors: Tensor) -> None:
            rest = iter(tensors)
            for does, own in cases:
                does(*(next(rest) for _ in own))

        of, rates = spec("features"), torch.zeros(1, 1, dtype=torch.float64)
        step, batch = begun(small_step(), of), make_batch(of)
        function: Any = Function(together, *(tensor.clone() for _, own in cases for tensor in own))
        compiler.compile_step(function, StepInputs(*batch, rates[0]), tmp_path / "step.so")
        monkeypatch.setattr(StepTensors, "of", lambda _: function.tensors)
        engine = compiler.load(tmp_path / "step.so", step, batch)
        assert engine.run_steps([batch], rates).tolist() == [[0, 1, 2, 3]]
        found = iter(function.tensors.flatten())
        for number, (does, own) in enumerate(cases):
            wanted = [tensor.clone() for tensor in own]
            does(*wanted)
            for right in wanted:
                message = f"case {number}: {{}}".format
                torch.testing.assert_close(next(found), right, equal_nan=True, msg=message)

    return check


def test_what_is_not_0_is_true(assert_same: Callable[..., None]) -> None:
    x, y = torch.tensor(ODD), torch.zeros(len(ODD))
    assert_same(
        (lambda x, y: y.copy_(x.bool()), (x, y)),
        (lambda x, y: y.copy_(x), (x, y.bool())),
        (lambda x, y: y.copy_(torch.where(x.bool(), 1.0, 0.0)), (x, y)),
        (lambda x, y: y.copy_((x > 0) + (x == x)), (x, y)),
    )


def test_a_number_that_is_not_one_is_the_largest_and_smallest(assert_same: Callable[..., None]) -> None:
    x, y = torch.tensor([ODD, [1.0] * len(ODD)]), torch.zeros(2)
    assert_same(
        (lambda x, y: y.copy_(x.amax(1)), (x, y)),
        (lambda x, y: y.copy_(x.amin(1)), (x, y)),
        (lambda x, y: y.fill_(0).add_(x.amax()), (x[:, :2].clone(), y)),
        (lambda x, y: y.copy_(x.amax(1)), (x.isnan().long(), y.long())),
    )


def test_tensors_that_change_places(assert_same: Callable[..., None]) -> None:
    """What one held is read before it changes, whatever the order in which they are written."""

    def swap(x: Tensor, y: Tensor) -> None:
        old = x.clone()
        x.copy_(y)
        y.copy_(old)

    def pass_on(x: Tensor, y: Tensor, z: Tensor) -> None:
        z.copy_(x)
        x.copy_(y)
        y.add_(z)

    x, y, z = torch.rand(3, 5)
    assert_same((swap, (x, y)), (pass_on, (x, y, z)))


def test_a_sum_over_one_element_replaces_it(assert_same: Callable[..., None]) -> None:
    assert_same((lambda x: x.copy_(x.sum(1, keepdim=True)), (torch.rand(3, 1),)))


def test_an_ignored_sample_costs_nothing_whatever_it_is(assert_same: Callable[..., None]) -> None:
    def loss(x: Tensor, target: Tensor, y: Tensor) -> None:
        y.copy_(F.nll_loss(x, target, reduction="sum"))

    rows = torch.tensor([[-inf, 0, 0], [0, -1, 2]])
    assert_same((loss, (rows, torch.tensor([-100, 1]), torch.zeros(()))))


def test_all_of_the_way_is_the_end_itself(assert_same: Callable[..., None]) -> None:
    x, y = torch.full((5,), 1e8), torch.rand(5)
    assert_same(*((lambda x, y, share=share: x.lerp_(y, share), (x, y)) for share in (0.1, 0.7, 1.0)))


def test_a_reshape_that_copies(assert_same: Callable[..., None]) -> None:
    def reshape(x: Tensor, y: Tensor) -> None:
        y.copy_(torch.ops.aten.reshape.default(x.t(), [12]))

    assert_same((reshape, (torch.rand(3, 4), torch.zeros(12))))


def test_rows_of_more_than_one_dimension_are_left_to_others(assert_same: Callable[..., None]) -> None:
    tensors = torch.rand(4, 3, 2), torch.tensor([1, 1]), torch.rand(2, 3, 2)
    with pytest.raises(UnknownOperationError, match="index_add"):
        assert_same((lambda x, index, rows: x.index_add_(0, index, rows), tensors))
