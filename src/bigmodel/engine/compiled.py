"""Steps as compiled code: forward, backward, clip and optimizer in one piece, without torch between."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.fixed_shape import FixedShapeEngine
from bigmodel.engine.functional_step import StepInputs, StepTensors
from bigmodel.engine.step import Step

Code = Callable[[list[Tensor]], list[Tensor]]
"""Compiled code of a `FunctionalStep`: takes all tensors and the inputs, returns the step's metrics."""


class CompiledEngine(FixedShapeEngine):
    """Runs a compiled step.

    Args:
        step: whose tensors it works on.
        code: the compiled `FunctionalStep` of that step.
        example: a batch like those that it was compiled for.
    """

    name = "compiled"

    def __init__(self, step: Step, code: Code, example: Batch) -> None:
        super().__init__(step, example)
        self._code = code
        self.rebind()

    def run_step(self, inputs: StepInputs) -> Tensor:
        """See `FixedShapeEngine.run_step`."""
        # Without a copy the next call could write its metrics into the same memory.
        return self._code([*self._tensors, *inputs])[0].clone()

    def rebind(self) -> None:
        """See `Engine.rebind`."""
        self._tensors = StepTensors.of(self.step).flatten()
