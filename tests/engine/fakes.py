"""Engines that stand for compiled ones."""

from __future__ import annotations

from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.fixed_shape import FixedShapeEngine
from bigmodel.engine.functional_step import FunctionalStep, StepInputs
from bigmodel.engine.step import Step


class Fake(FixedShapeEngine):
    """Does what a compiled step does, by torch's operations.

    Attributes:
        calls: how many steps it did.
    """

    name = "compiled"

    def __init__(self, step: Step, example: Batch) -> None:
        super().__init__(step, example)
        self.calls = 0
        self.function = FunctionalStep(step)

    def run_step(self, inputs: StepInputs) -> Tensor:
        self.calls += 1
        return self.function(self.function.tensors, inputs)

    def rebind(self) -> None:
        self.function = FunctionalStep(self.step)
